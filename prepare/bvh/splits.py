"""Which file goes to the training, validation and test split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prepare.bvh.caption_table import FileCaptions, read_split_file
from prepare.bvh.files import match_files
from utils.errors import UserError
from utils.options import option

ENOUGH_FOR_TWO = 5  # files, of which two can validate


@dataclass
class SplitOptions:
    split_file: str = option("", "CSV table with the columns file, split")
    split_seed: int = option(0, "seed of the random split", minimum=0)
    val_share: float = option(0.05, "share of the files for validation", minimum=0, maximum=1)
    test_share: float = option(0.15, "share of the files for testing", minimum=0, maximum=1)

    def validate(self) -> None:
        if self.val_share + self.test_share >= 1:
            raise UserError("--val_share and --test_share leave nothing for training")


def assign_splits(
    captions: dict[Path, FileCaptions], options: SplitOptions, root: Path
) -> dict[Path, str]:
    """Split of each file: from --split_file, else from the table, else drawn at random.

    All clips of a file, mirror images included, go where the file goes. A share above 0 is at least
    one file where there are enough: one file trains, two also validate, three also test. From five
    on two validate, of different captions if there are any, since retrieval tells captions apart.
    """
    splits = {path: entry.split for path, entry in captions.items() if entry.split}
    if options.split_file:
        listed = read_split_file(options.split_file)
        matches = match_files(listed, captions, root)
        splits |= {path: listed[name] for name, path in matches.items()}
    rest = {path: entry.meaning() for path, entry in captions.items() if path not in splits}
    drawn = _draw_splits(list(rest.values()), set(splits.values()), options)
    return splits | dict(zip(rest, drawn, strict=True))


def _draw_splits(meanings: list[str], filled: set[str], options: SplitOptions) -> list[str]:
    """Splits of files by their meanings; those in `filled` have files already and may do with."""
    count = len(meanings)
    spare = max(count - ("train" not in filled), 0)
    enough = {"val": 2 if count >= ENOUGH_FOR_TWO else 1, "test": 1}
    sizes: dict[str, int] = {}
    for split, share in (("val", options.val_share), ("test", options.test_share)):
        least = enough[split] if share > 0 and split not in filled else 0
        sizes[split] = min(max(round(share * count), least), spare)
        spare -= sizes[split]
    order = np.random.default_rng(options.split_seed).permutation(count).tolist()
    if sizes["val"] == 2:
        chosen = _first_two(order, meanings)
        order.sort(key=lambda file: file not in chosen)  # stable: the others keep their order
    drawn = ["train"] * count
    for rank, file in enumerate(order[: sizes["val"] + sizes["test"]]):
        drawn[file] = "val" if rank < sizes["val"] else "test"
    return drawn


def _first_two(order: list[int], meanings: list[str]) -> set[int]:
    """The first file, and the first after it that means something else, if there is one."""
    first, *others = order
    return {first, next((o for o in others if meanings[o] != meanings[first]), others[0])}
