"""Datasets in the HumanML3D folder layout, and batches of them.

The rules are those of the public loaders: clips of 40 (KIT: 24) to 199 frames, captions for parts
of a clip become clips of their own, lengths are cut to a multiple of 4 (one unit less in a third
of the draws) from a random start, and zero-padded. Batches are raw: whoever reads them
normalises by statistics of its own.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_loaders.annotations import Annotations
from data_loaders.captions import Caption, parse_captions
from data_loaders.normalizer import Statistics, plain_statistics
from data_loaders.packing import PackedClips, load_packed
from data_loaders.skeleton import HUMANML, KIT, SKELETONS, Skeleton, skeleton_for_dim
from utils.errors import UserError
from utils.files import read_object
from utils.masks import zero_padding
from utils.options import option
from utils.places import here_or_project

FOLDERS = {"humanml": "HumanML3D", "kit": "KIT-ML"}
GROUPED = 6  # batches that are sorted by length together
UNIT = 4  # lengths are multiples of this many frames
LONGEST = 200  # clips must be shorter than this
SINGLE_UNIT_SHARE = 2 / 3  # how often the longest possible length is taken


@dataclass(frozen=True)
class DatasetFolder:
    name: str
    path: Path
    skeleton: Skeleton


@dataclass(frozen=True)
class Entry:
    """A clip or a part of one: rows [start, start + length) of the packed array."""

    name: str
    start: int
    length: int
    captions: tuple[Caption, ...]
    is_subclip: bool = False


@dataclass(frozen=True)
class MotionBatch:
    """motion ``[B, T, D]`` raw, zero beyond lengths ``[B]``; captions, tokens, names: B."""

    motion: Tensor
    lengths: Tensor
    captions: list[str]
    tokens: list[tuple[str, ...]]
    names: list[str]

    def normalized(self, stats: Statistics) -> Tensor:
        """The motions ``[B, T, D]`` in the space of `stats`, zero beyond their lengths."""
        return zero_padding(stats.normalize(self.motion), self.lengths)

    def to(self, device: torch.device | str) -> "MotionBatch":
        return MotionBatch(
            self.motion.to(device, non_blocking=True),
            self.lengths.to(device, non_blocking=True),
            self.captions,
            self.tokens,
            self.names,
        )


@dataclass
class DataDirOptions:
    """For every script that may need a file of a dataset's folder."""

    data_dir: str = option("", "dataset folder, where it is not dataset/NAME", free="resume")


@dataclass
class CacheOptions:
    """For every script that packs a dataset when it first reads it."""

    rebuild_cache: bool = option(False, "pack the dataset's files anew", free="always")


@dataclass
class DatasetOptions(DataDirOptions, CacheOptions):
    """For every script that reads a dataset."""

    dataset: str = option("humanml", "humanml, kit, or the name of a folder in dataset/")


@dataclass
class SplitDatasetOptions(DatasetOptions):
    """For every script that reads one split of a dataset."""

    split: str = option("val", "its split: val while developing, test for the final table")


def resolve_dataset(name: str, data_dir: str = "") -> DatasetFolder:
    """Find the folder of a dataset: `data_dir`, else ``dataset/NAME`` here or in the project.

    Raises UserError when it is missing or empty, or when its skeleton is unknown.
    """
    relative = Path("dataset") / FOLDERS.get(name, name)
    path = Path(data_dir) if data_dir else here_or_project(relative)
    if not path.is_dir() or not any(path.iterdir()):
        state = "is empty" if path.is_dir() else "does not exist"
        raise UserError(
            f"dataset {name}: folder {path} {state}; put the data there, pass --data_dir, or "
            "make the embedded set with: python -m prepare.synthetic --out dataset/synthetic"
        )
    return DatasetFolder(name, path, _skeleton(name, path))


def _skeleton(name: str, path: Path) -> Skeleton:
    if name == "kit":
        return KIT
    if name == "humanml":
        return HUMANML
    if (path / "dataset.json").is_file():
        stated = read_object(path / "dataset.json").get("skeleton", "")
        if not isinstance(stated, str) or stated not in SKELETONS:
            raise UserError(f"{path / 'dataset.json'}: skeleton {stated!r} is unknown")
        return SKELETONS[stated]
    stats = Statistics.load(path / "Mean.npy", path / "Std.npy", "dataset_stats")
    skeleton = skeleton_for_dim(stats.feature_dim)
    if skeleton is None:
        raise UserError(f"{path}: no skeleton has {stats.feature_dim} features (263 or 251 known)")
    return skeleton


class MotionDataset:
    """The clips of one split. Items are drawn by `make_loader`."""

    def __init__(
        self,
        folder: DatasetFolder,
        packed: PackedClips,
        entries: list[Entry],
        stats: Statistics,
        annotations: Annotations | None,
        random_items: bool = True,
    ) -> None:
        self.folder, self.skeleton = folder, folder.skeleton
        self.packed, self.entries, self.stats = packed, entries, stats
        self.annotations = annotations
        self.random_items = random_items

    def __len__(self) -> int:
        return len(self.entries)

    def raw(self, entry: Entry) -> Tensor:
        """Un-normalised features ``[T, D]`` of the whole entry."""
        return self.packed.rows[entry.start : entry.start + entry.length]

    def feature_stats(self) -> Statistics:
        """Plain mean and deviation per feature over this split, as TMR normalises (eps 1e-12).

        Features that never vary get deviation 1.
        """
        stats = plain_statistics((self.raw(e).numpy() for e in self.entries), eps=1e-12)
        return Statistics(
            stats.name, stats.mean, stats.std.where(stats.std > 1e-6, torch.ones(1)), stats.eps
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that a result may depend on: clips, captions, what is known of them,
        the split and its statistics; not of where they lie."""
        digest = hashlib.sha256(self.packed.digest.encode())
        digest.update(repr([(e.name, e.start, e.length) for e in self.entries]).encode())
        digest.update(repr(self.annotations).encode())
        for vector in (self.stats.mean, self.stats.std):
            digest.update(vector.numpy().tobytes())
        return digest.hexdigest()

    def captions(self) -> Iterator[str]:
        """Every caption of the split."""
        return (caption.text for entry in self.entries for caption in entry.captions)

    def meanings(self, captions: list[str]) -> list[str]:
        """What each caption states, so that paraphrases are equal; itself where unknown."""
        notes = self.annotations.captions if self.annotations else {}
        return [notes[c].meaning if c in notes else c for c in captions]

    def families(self, names: list[str]) -> list[str]:
        """The content family of each clip; empty where unknown."""
        notes = self.annotations.clips if self.annotations else {}
        return [notes[n].family if n in notes else "" for n in names]


def open_dataset(
    name: str,
    split: str,
    data_dir: str = "",
    *,
    random_items: bool = True,
    phrasings: str = "all",
    rebuild_cache: bool = False,
) -> MotionDataset:
    """Open one split.

    random_items: draw captions, lengths and crops at random; else take the first caption and the
    longest length from the start. phrasings: ``all``, or only the ``even`` or ``odd`` captions of
    each clip (the only one where there is one). rebuild_cache: trust no packed form of the files
    that is there. Prints one summary of clips left out.
    Raises UserError for a missing folder or split, or when no clip is usable.
    """
    folder = resolve_dataset(name, data_dir)
    packed = load_packed(folder.path, folder.skeleton.feature_dim, rebuild_cache)
    ids = _split_ids(folder, split)
    entries, skipped = build_entries(packed, ids, folder.skeleton)
    _report_skipped(folder, split, skipped)
    if not entries:
        raise UserError(
            f"dataset {name}: no usable clip in split {split} of {folder.path} "
            f"({len(ids)} ids listed); check new_joint_vecs and texts"
        )
    if phrasings != "all":
        entries = [_with_phrasings(entry, phrasings) for entry in entries]
    stats = Statistics.load(folder.path / "Mean.npy", folder.path / "Std.npy", "dataset_stats")
    if stats.feature_dim != folder.skeleton.feature_dim:
        raise UserError(
            f"{folder.path / 'Mean.npy'} has {stats.feature_dim} features; the "
            f"{folder.skeleton.name} skeleton has {folder.skeleton.feature_dim}"
        )
    annotations = Annotations.load(folder.path)
    return MotionDataset(folder, packed, entries, stats, annotations, random_items)


def _split_ids(folder: DatasetFolder, split: str) -> list[str]:
    path = folder.path / f"{split}.txt"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.path.glob("*.txt"))) or "none"
        raise UserError(f"dataset {folder.name}: {path} does not exist (splits there: {there})")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no readable list of names in UTF-8 ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def build_entries(
    packed: PackedClips, ids: list[str], skeleton: Skeleton
) -> tuple[list[Entry], dict[str, list[str]]]:
    """Entries sorted by length (stable; parts of a clip before it), and skipped ids by reason."""
    entries: list[Entry] = []
    skipped: dict[str, list[str]] = {}
    for name in ids:
        reason = _reason_to_skip(packed, name, skeleton)
        if reason:
            skipped.setdefault(reason, []).append(name)
            continue
        captions, problems = parse_captions(packed.texts[name])
        if problems:
            skipped.setdefault(f"caption lines ({problems[0]})", []).append(name)
        start, length = packed.spans[name]
        for number, caption in enumerate(c for c in captions if not c.whole_clip):
            first, last = (int(time * HUMANML.fps) for time in (caption.start, caption.end))
            part = min(last, length) - first
            if _fits(part, skeleton):
                part_name = f"{name}_part{number}"  # a stable name, whatever the random state
                entries.append(Entry(part_name, start + first, part, (caption,), True))
        whole = tuple(c for c in captions if c.whole_clip)
        if whole:
            entries.append(Entry(name, start, length, whole))
    return sorted(entries, key=lambda entry: entry.length), skipped


def _fits(length: int, skeleton: Skeleton) -> bool:
    return skeleton.min_length <= length < LONGEST


def _reason_to_skip(packed: PackedClips, name: str, skeleton: Skeleton) -> str:
    if name in packed.problems:
        return packed.problems[name]
    if name not in packed.spans:
        return "no motion file"
    if not _fits(packed.spans[name][1], skeleton):
        return f"not {skeleton.min_length} to {LONGEST - 1} frames long"
    if not packed.texts.get(name, "").strip():
        return "no captions"
    return ""


def _report_skipped(folder: DatasetFolder, split: str, skipped: dict[str, list[str]]) -> None:
    """One line that names the first few of each kind."""
    if not skipped:
        return
    counts = Counter({reason: len(names) for reason, names in skipped.items()})
    parts = [
        f"{count} x {reason} ({', '.join(skipped[reason][:3])}{', ...' if count > 3 else ''})"
        for reason, count in counts.most_common()
    ]
    print(f"warning: {folder.name} {split}: left out {'; '.join(parts)}")


def _with_phrasings(entry: Entry, phrasings: str) -> Entry:
    chosen = entry.captions[0 if phrasings == "even" else 1 :: 2] or entry.captions
    return Entry(entry.name, entry.start, entry.length, chosen, entry.is_subclip)


@dataclass(frozen=True)
class Draw:
    """What is random about one item: caption index, length in frames, first frame."""

    caption: int
    length: int
    first: int


def unit_length(length: int, single: bool) -> int:
    """Length of an item of a clip: a multiple of 4, one unit less unless `single`."""
    return (length // UNIT - (0 if single else 1)) * UNIT


def make_loader(
    dataset: MotionDataset,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    epoch: int = 0,
    drop_last: bool = False,
    pad_to: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[MotionBatch]:
    """One pass over the dataset; the same for the same seed and epoch.

    The rows are memory-mapped, so no worker processes are needed. `pad_to` is the padded length
    (None = the longest of each batch; shuffled batches then hold clips of similar length, so that
    little is computed on padding). With several processes every one yields its own share.
    """
    rng = np.random.default_rng([seed, epoch])
    order = np.arange(len(dataset))
    if shuffle:
        order = rng.permutation(len(dataset))
        order = order if pad_to else _group_by_length(order, batch_size * world_size, rng)
    draws = [
        _draw(entry, u, dataset.random_items)
        for entry, u in zip(dataset.entries, rng.random((len(dataset), 3)), strict=True)
    ]
    stop = len(order) - len(order) % (batch_size * world_size) if drop_last else len(order)
    for first in range(rank * batch_size, stop, batch_size * world_size):
        rows = order[first : first + batch_size]
        yield collate(dataset, [(dataset.entries[i], draws[i]) for i in rows], pad_to)


def _group_by_length(order: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Sort within stretches of a few batches (entries go by length), then shuffle the batches."""
    stretches = np.split(order, range(GROUPED * size, len(order), GROUPED * size))
    batches = [b for s in stretches for b in np.split(np.sort(s), range(size, len(s), size))]
    full = [b for b in batches if len(b) == size]
    rest = [b for b in batches if len(b) < size]
    return np.concatenate([*(full[i] for i in rng.permutation(len(full))), *rest])


def _draw(entry: Entry, uniform: np.ndarray, random_items: bool) -> Draw:
    if not random_items:
        return Draw(0, unit_length(entry.length, single=True), 0)
    length = unit_length(entry.length, single=uniform[0] < SINGLE_UNIT_SHARE)
    first = int(uniform[1] * (entry.length - length + 1))
    return Draw(int(uniform[2] * len(entry.captions)), length, first)


def collate(
    dataset: MotionDataset, items: list[tuple[Entry, Draw]], pad_to: int | None = None
) -> MotionBatch:
    """Crop and zero-pad the items."""
    lengths = torch.tensor([draw.length for _, draw in items])
    frames = pad_to or int(lengths.max())
    motion = torch.zeros(len(items), frames, dataset.stats.feature_dim)
    for row, (entry, draw) in zip(motion, items, strict=True):
        row[: draw.length] = dataset.raw(entry)[draw.first : draw.first + draw.length]
    captions = [entry.captions[draw.caption] for entry, draw in items]
    return MotionBatch(
        motion,
        lengths,
        [caption.text for caption in captions],
        [caption.tokens for caption in captions],
        [entry.name for entry, _ in items],
    )
