import csv
from pathlib import Path

import pytest

from prepare.bvh.caption_table import FileCaptions, read_split_file
from prepare.bvh.splits import SplitOptions, assign_splits
from utils.errors import UserError

ROOT = Path("takes")


def files(count: int, **splits: str) -> dict[Path, FileCaptions]:
    """`count` files; those named in `splits` say their own in the table."""
    names = [f"walk{number}" for number in range(count)]
    return {ROOT / f"{name}.bvh": FileCaptions(split=splits.get(name, "")) for name in names}


def sizes(count: int, given: dict[str, str] | None = None, **options) -> tuple[int, int, int]:
    found = assign_splits(files(count, **(given or {})), SplitOptions(**options), ROOT)
    assert len(found) == count
    train, val, test = (list(found.values()).count(split) for split in ("train", "val", "test"))
    return train, val, test


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (6, (4, 1, 1)), (40, (32, 2, 6))],
)
def test_few_files_fill_training_then_validation_then_testing(count, expected):
    assert sizes(count) == expected


def test_large_shares_leave_a_file_for_training():
    assert sizes(2, val_share=0.5, test_share=0.49) == (1, 1, 0)
    assert sizes(3, val_share=0.05, test_share=0.9) == (1, 1, 1)


def test_a_share_of_zero_is_none():
    assert sizes(6, val_share=0.0) == (5, 0, 1)
    assert sizes(6, val_share=0.0, test_share=0.0) == (6, 0, 0)


def test_given_splits_count(tmp_path):
    assert sizes(3, {"walk0": "train"}) == (1, 1, 1)
    assert sizes(4, {"walk0": "val", "walk1": "test"}) == (2, 1, 1)
    path = tmp_path / "splits.csv"
    path.write_text("file,split\nwalk0,val\nwalk2,test\n")
    splits = assign_splits(files(4, walk0="test"), SplitOptions(split_file=str(path)), ROOT)
    named = {file.stem: split for file, split in splits.items()}
    assert named == {"walk0": "val", "walk1": "train", "walk2": "test", "walk3": "train"}


def test_random_splits_depend_on_the_seed_only():
    draws = [assign_splits(files(20), SplitOptions(split_seed=seed), ROOT) for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_an_unknown_split_is_told(tmp_path):
    path = tmp_path / "splits.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["file", "split"], ["walk0", "dev"]])
    with pytest.raises(UserError, match="line 2: split 'dev' is unknown"):
        read_split_file(path)
