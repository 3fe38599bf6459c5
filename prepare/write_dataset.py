"""Write motion clips with captions as a dataset folder in the HumanML3D layout.

    out/new_joint_vecs/<name>.npy   features, float32 [T, D]
    out/new_joints/<name>.npy       joints decoded from them, float32 [T, J, 3], metres
    out/texts/<name>.txt            one caption line per caption
    out/train.txt val.txt test.txt train_val.txt all.txt
    out/Mean.npy Std.npy            over the training split
    out/annotations.json            facts and meaning of captions, family and labels of clips
    out/index.csv                   name, split, length and source of every clip
    out/dataset.json                skeleton, frame rate, counts and how the folder was made

Everything is written to a temporary sibling folder that takes the final name at the very end.
What a killed run has left of it goes away when the same folder is written again.
"""

import csv
import dataclasses
import glob
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data_loaders.annotations import Annotations, CaptionNote, ClipNote
from data_loaders.captions import Caption, format_caption_line, swap_left_right, tag_words
from data_loaders.facts import Fact, swap_sides
from data_loaders.features import ProcessedMotion, features_to_joints
from data_loaders.normalizer import compute_statistics
from data_loaders.skeleton import HUMANML, Skeleton, skeleton_for_dim
from prepare.plausible import check_plausible
from utils.errors import UserError
from utils.files import read_array, write_json, write_text
from utils.owners import is_running
from utils.seals import seal

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class NotedCaption:
    """A caption and what is known of its content; without a meaning it means its own text."""

    caption: Caption
    facts: tuple[Fact, ...] = ()
    meaning: str = ""

    @staticmethod
    def of(text: str, facts: tuple[Fact, ...] = (), meaning: str = "") -> "NotedCaption":
        """A caption of the whole clip, with part-of-speech tags."""
        return NotedCaption(Caption(text, tuple(tag_words(text))), facts, meaning)

    def mirrored(self) -> "NotedCaption":
        text = swap_left_right(self.caption.text)
        caption = dataclasses.replace(self.caption, text=text, tokens=tuple(tag_words(text)))
        facts = tuple(swap_sides(fact) for fact in self.facts)
        return NotedCaption(caption, facts, swap_side_words(self.meaning))


@dataclass(frozen=True)
class ClipEntry:
    """All of a clip but its motion. `source` says where it came from (kept in index.csv)."""

    name: str
    split: str
    captions: tuple[NotedCaption, ...]
    family: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def mirrored(self) -> "ClipEntry":
        """The entry of the left-right mirrored motion: "M" + name, same split, sides swapped."""
        return dataclasses.replace(
            self,
            name=f"M{self.name}",
            captions=tuple(caption.mirrored() for caption in self.captions),
            family=swap_side_words(self.family),
            labels={key: swap_side_words(value) for key, value in self.labels.items()},
        )


def swap_side_words(label: str) -> str:
    """Swap left and right in a label such as ``walk-turn-left`` or ``side=left_hand``."""
    return "_".join(swap_left_right(part) for part in label.split("_"))


def collect_notes(entries: Iterable[ClipEntry]) -> dict[str, CaptionNote]:
    """Facts and meanings of captions by their text.

    Raises UserError when one text is given with two different notes.
    """
    notes: dict[str, CaptionNote] = {}
    for entry in entries:
        for noted in entry.captions:
            if not (noted.facts or noted.meaning):
                continue
            text = noted.caption.text
            note = CaptionNote(noted.facts, noted.meaning or text)
            if notes.setdefault(text, note) != note:
                raise UserError(f"the caption {text!r} is given with two different notes")
    return notes


def write_motion(folder: Path, name: str, motion: ProcessedMotion) -> int:
    """Save the arrays of one clip and return its length T. Worker processes may call this.

    Raises ImplausibleMotion, before anything is written, for values that no person reaches.
    """
    features = motion.features
    check_plausible(features, skeleton_for_dim(features.shape[1]))
    joints = features_to_joints(features, skeleton_for_dim(features.shape[1]))
    for part, values in (("new_joint_vecs", features), ("new_joints", joints)):
        path = folder / part / f"{name}.npy"
        np.save(path, values.numpy())
        seal(path)
    return len(features)


class DatasetWriter:
    """Context manager that collects clips and makes the folder `out` complete, or not at all.

        with DatasetWriter("dataset/MyData", info={"made_by": "..."}) as writer:
            writer.add(entry, motion)

    `info` goes into dataset.json. With `overwrite`, a dataset folder written earlier is replaced.
    Raises UserError when `out` already holds files, when a name is used twice, when a split is
    unknown, and at the end when the training split is empty.
    """

    def __init__(
        self,
        out: str | Path,
        skeleton: Skeleton = HUMANML,
        overwrite: bool = False,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.out, self.skeleton, self.info = Path(out), skeleton, info or {}
        self.entries: dict[str, ClipEntry] = {}
        self.lengths: dict[str, int] = {}
        _remove_leftovers(self.out)
        _check_replaceable(self.out, overwrite)

    def __enter__(self) -> "DatasetWriter":
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.folder = _temporary_name(self.out, "partial")
        for part in ("new_joint_vecs", "new_joints", "texts"):
            (self.folder / part).mkdir(parents=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
                _replace_folder(self.folder, self.out)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, entry: ClipEntry, motion: ProcessedMotion) -> None:
        """Write one clip."""
        self.register(entry, write_motion(self.folder, entry.name, motion))

    def register(self, entry: ClipEntry, length: int) -> None:
        """Add a clip of `length` feature rows that `write_motion` has put into the folder."""
        if entry.name in self.entries:
            raise UserError(f"two clips have the name {entry.name}")
        if entry.split not in SPLITS:
            raise UserError(
                f"clip {entry.name} ({entry.source}): split {entry.split!r} is unknown; "
                f"choose one of {', '.join(SPLITS)}"
            )
        lines = [format_caption_line(noted.caption) for noted in entry.captions]
        text = "".join(f"{line}\n" for line in lines)
        (self.folder / "texts" / f"{entry.name}.txt").write_text(text, encoding="utf-8")
        self.entries[entry.name] = entry
        self.lengths[entry.name] = length

    def write_extra(self, name: str, value: Any) -> None:
        """Put one more JSON file, such as a report, into the folder."""
        write_json(self.folder / name, value)

    def names(self, *splits: str) -> list[str]:
        """Names in these splits, sorted; a mirrored clip follows its original."""
        chosen = [name for name, entry in self.entries.items() if entry.split in splits]
        return sorted(chosen, key=lambda name: (name.removeprefix("M"), name))

    def _finish(self) -> None:
        if not self.names("train"):
            raise UserError(f"{self.out}: no clip is in the training split, so nothing was written")
        lists = {split: (split,) for split in SPLITS}
        lists |= {"train_val": ("train", "val"), "all": SPLITS}
        for list_name, splits in lists.items():
            text = "".join(f"{name}\n" for name in self.names(*splits))
            write_text(self.folder / f"{list_name}.txt", text)
        compute_statistics(self._training_features(), self.skeleton).save(self.folder)
        self._annotations().save(self.folder)
        self._write_index()
        counts = {split: len(self.names(split)) for split in SPLITS}
        about = {"skeleton": self.skeleton.name, "fps": self.skeleton.fps, "clips": counts}
        write_json(self.folder / "dataset.json", self.info | about)

    def _training_features(self) -> Iterator[np.ndarray]:
        for name in self.names("train"):
            yield read_array(self.folder / "new_joint_vecs" / f"{name}.npy")

    def _annotations(self) -> Annotations:
        clips = {
            name: ClipNote(family=entry.family, labels=entry.labels)
            for name, entry in self.entries.items()
            if entry.family or entry.labels
        }
        return Annotations(captions=collect_notes(self.entries.values()), clips=clips)

    def _write_index(self) -> None:
        with open(self.folder / "index.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["name", "split", "length", "source"])
            for name in self.names(*SPLITS):
                entry = self.entries[name]
                rows.writerow([name, entry.split, self.lengths[name], entry.source])


def _check_replaceable(out: Path, overwrite: bool) -> None:
    """Only a folder that this module wrote may be replaced, so a mistyped path loses nothing."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"--out {out} already holds files; add --overwrite or name another folder")
    if not (out / "dataset.json").is_file():
        raise UserError(
            f"--out {out} holds files but no dataset.json, so it is not replaced; "
            "name another folder"
        )


def _replace_folder(new: Path, out: Path) -> None:
    old = None
    if out.exists():
        old = _temporary_name(out, "old")
        out.replace(old)
    new.replace(out)
    if old:
        shutil.rmtree(old)


def _temporary_name(out: Path, kind: str) -> Path:
    """A hidden sibling of `out` that no other process, here or on another machine, uses."""
    return out.with_name(f".{out.name}.{kind}.{platform.node()}.{os.getpid()}")


def _remove_leftovers(out: Path) -> None:
    """Delete what killed runs left beside `out`; a dataset half replaced goes back to its place."""
    for kind in ("old", "partial"):
        pattern = str(_temporary_name(out, kind)).removesuffix(str(os.getpid()))
        for name in glob.glob(f"{glob.escape(pattern)}*"):
            process = name.removeprefix(pattern)
            if not process.isdigit() or is_running(int(process)):
                continue
            if kind == "old" and not out.exists():
                Path(name).replace(out)
            else:
                shutil.rmtree(name)
