"""Tiny dataset folders in the HumanML3D layout, for tests."""

from pathlib import Path

import numpy as np

from data_loaders.captions import tag_words
from data_loaders.skeleton import HUMANML, Skeleton

SPLITS = ("train", "val", "test")


def caption_line(text: str, start: float = 0.0, end: float = 0.0) -> str:
    return f"{text}#{' '.join(tag_words(text))}#{start}#{end}\n"


def clip(number: int, length: int, width: int = HUMANML.feature_dim) -> np.ndarray:
    """Features ``[T, D]`` that tell clip, frame and column: 1000 number + frame + column / 1000."""
    frame, column = np.arange(length)[:, None], np.arange(width)[None]
    return (1000 * number + frame + 0.001 * column).astype(np.float32)


def write_dataset(
    folder: Path,
    lengths: dict[str, int],
    captions: dict[str, str] | None = None,
    splits: dict[str, list[str]] | None = None,
    skeleton: Skeleton = HUMANML,
) -> Path:
    """A folder with one clip per name; clip numbers count from 1 in the order of `lengths`.

    captions: content of the caption files; without it two captions per clip. splits: names in each
    split; without it all clips are in every split. The statistics are mean 0 and deviation 2.
    """
    for part in ("new_joint_vecs", "texts"):
        (folder / part).mkdir(parents=True)
    for number, (name, length) in enumerate(lengths.items(), start=1):
        np.save(
            folder / "new_joint_vecs" / f"{name}.npy", clip(number, length, skeleton.feature_dim)
        )
        default = caption_line(f"{name} walks") + caption_line(f"{name} runs to the left")
        text = (captions or {}).get(name, default)
        (folder / "texts" / f"{name}.txt").write_text(text, encoding="utf-8")
    for split in SPLITS:
        names = list(lengths) if splits is None else splits.get(split, [])
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    write_statistics(folder, skeleton.feature_dim)
    return folder


def write_statistics(folder: Path, width: int) -> None:
    values = [np.full(width, value, np.float32) for value in (0.0, 2.0)]
    for name, value in zip(("Mean.npy", "Std.npy"), values, strict=True):
        np.save(folder / name, value)


def clip_number(row: np.ndarray) -> tuple[int, int]:
    """Which clip and which of its frames a raw row ``[D]`` is."""
    return divmod(round(float(row[0])), 1000)
