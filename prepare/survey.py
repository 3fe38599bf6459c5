"""What a dataset folder holds, and what of it trainings and evaluations would refuse or shrink."""

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np
from torch import Tensor

from data_loaders.annotations import Annotations
from data_loaders.humanml import DatasetFolder, Entry, build_entries
from data_loaders.normalizer import Statistics, compute_statistics
from data_loaders.packing import PackedClips, load_packed
from prepare.plausible import ImplausibleMotion, check_plausible
from prepare.write_dataset import SPLITS
from utils.errors import UserError

TRAINING_BATCH, RETRIEVAL_BATCH = 64, 32  # default --batch_size; the latter of TMR and evaluators
POOL = 32  # captions of distinct meanings that are ranked together, in validation and evaluation
TABLE_HEAD = [
    "split", "clips", "minutes", "shortest", "median", "longest", "captions", "wordings",
    "meanings", "not in train",
]  # fmt: skip
LARGEST_SHIFT, LARGEST_RATIO = 0.25, 1.5  # of statistics that still count as the dataset's own


@dataclass(frozen=True)
class SplitSurvey:
    """entries: usable clips; left_out: ids of others by reason; meanings: of all captions (itself
    where a caption has no note); ranked: distinct meanings of the clips' first captions."""

    entries: list[Entry]
    left_out: dict[str, list[str]]
    captions: list[str]
    meanings: set[str]
    ranked: int
    families: Counter[str]

    def seconds(self, fps: float) -> np.ndarray:
        """Length ``[clips]`` of each clip."""
        return np.array([entry.length for entry in self.entries]) / fps


@dataclass(frozen=True)
class Survey:
    folder: DatasetFolder
    packed: PackedClips
    splits: dict[str, SplitSurvey]
    warnings: list[str]

    def table(self) -> str:
        """One line per split for the terminal; lengths are in seconds."""
        train = self.splits["train"].meanings
        rows = [TABLE_HEAD]
        for name, split in self.splits.items():
            seconds = split.seconds(self.folder.skeleton.fps)
            spread = np.quantile(seconds, (0, 0.5, 1)) if len(seconds) else np.zeros(3)
            wordings, unseen = set(split.captions), split.meanings - train
            rows.append(
                [name, str(len(seconds)), f"{seconds.sum() / 60:.1f}"]
                + [f"{value:.2f}" for value in spread]
                + [str(len(part)) for part in (split.captions, wordings, split.meanings, unseen)]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )


def survey_dataset(folder: DatasetFolder, rebuild_cache: bool = False) -> Survey:
    """Count and check everything once. Raises UserError when the folder cannot be read at all."""
    packed = load_packed(folder.path, folder.skeleton.feature_dim, rebuild_cache)
    annotations = Annotations.load(folder.path)
    ids = {split: _read_ids(folder, split) for split in SPLITS}
    splits = {name: _survey_split(folder, packed, annotations, ids[name]) for name in SPLITS}
    warnings = [
        *_left_out(splits),
        *_shared_clips(ids),
        *_small_splits(splits),
        *_odd_statistics(folder, packed, splits["train"]),
        *_implausible_clips(folder, packed, splits),
    ]
    return Survey(folder, packed, splits, warnings)


def _read_ids(folder: DatasetFolder, split: str) -> list[str]:
    path = folder.path / f"{split}.txt"
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _survey_split(
    folder: DatasetFolder, packed: PackedClips, annotations: Annotations | None, ids: list[str]
) -> SplitSurvey:
    entries, left_out = build_entries(packed, ids, folder.skeleton)
    notes = annotations.captions if annotations else {}
    clips = annotations.clips if annotations else {}
    texts = [[caption.text for caption in entry.captions] for entry in entries]
    meanings = [[notes[t].meaning if t in notes else t for t in captions] for captions in texts]
    return SplitSurvey(
        entries=entries,
        left_out=left_out,
        captions=list(chain.from_iterable(texts)),
        meanings=set(chain.from_iterable(meanings)),
        ranked=len({first for first, *_ in meanings}),
        families=Counter(clips[e.name].family for e in entries if e.name in clips),
    )


def _left_out(splits: dict[str, SplitSurvey]) -> list[str]:
    return [
        f"{name}: {len(ids)} clips are left out: {reason} ({', '.join(ids[:3])})"
        for name, split in splits.items()
        for reason, ids in split.left_out.items()
    ]


def _shared_clips(ids: dict[str, list[str]]) -> list[str]:
    """Clips that are, themselves or as their mirror image, in two splits."""
    found = []
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        left, right = ({name.removeprefix("M") for name in ids[s]} for s in (first, second))
        if shared := sorted(left & right):
            found.append(
                f"{len(shared)} clips or their mirror images are both in {first} and in {second} "
                f"({', '.join(shared[:3])}): figures of {second} will be too good"
            )
    return found


def _small_splits(splits: dict[str, SplitSurvey]) -> list[str]:
    train, val, test = (splits[name] for name in SPLITS)
    found = []
    clips = len(train.entries)
    if clips == 0:
        found.append("train has no usable clip: nothing can be trained")
    elif clips < TRAINING_BATCH:
        found.append(
            f"train has {clips} clips and trainings take {TRAINING_BATCH} at a time "
            f"(train_tmr and train_evaluators {RETRIEVAL_BATCH}): give them --batch_size {clips} "
            "or less"
        )
    if not val.entries:
        found.append(
            "val has no usable clip, and trainings stop without: give prepare.from_bvh more files, "
            "a --val_share above 0, or files for val in the column split or --split_file"
        )
    elif val.ranked == 1:
        found.append(
            f"val has {len(val.entries)} clips that state one thing, and retrieval (train_tmr, "
            "train_evaluators) stops without two to tell apart: put clips of other captions there"
        )
    elif val.ranked < POOL:
        found.append(
            f"val has {len(val.entries)} clips of {val.ranked} distinct meanings: retrieval "
            f"(train_tmr, train_evaluators) ranks them in pools of {val.ranked} instead of {POOL}"
        )
    if len(test.entries) < POOL:
        found.append(
            f"test has {len(test.entries)} clips: R-Precision (eval.eval_humanml) needs {POOL}"
        )
    return found


def _odd_statistics(folder: DatasetFolder, packed: PackedClips, train: SplitSurvey) -> list[str]:
    try:
        stored = Statistics.load(folder.path / "Mean.npy", folder.path / "Std.npy", "dataset_stats")
    except UserError as error:
        return [str(error)]
    if stored.feature_dim != folder.skeleton.feature_dim:
        return [f"Mean.npy has {stored.feature_dim} features, not {folder.skeleton.feature_dim}"]
    if not train.entries:
        return []
    motions = (_rows(packed, entry).numpy() for entry in train.entries)
    own = compute_statistics(motions, folder.skeleton)
    shift = float(((stored.mean - own.mean).abs() / own.std).max())
    ratio = float((stored.std / own.std).log().abs().max().exp())
    if shift <= LARGEST_SHIFT and ratio <= LARGEST_RATIO:
        return []
    return [
        f"Mean.npy and Std.npy are not those of train: means differ by up to {shift:.2g} "
        f"deviations, deviations by a factor of up to {ratio:.2g}"
    ]


def _implausible_clips(
    folder: DatasetFolder, packed: PackedClips, splits: dict[str, SplitSurvey]
) -> list[str]:
    problems = []
    for entry in chain.from_iterable(split.entries for split in splits.values()):
        try:
            check_plausible(_rows(packed, entry), folder.skeleton)
        except ImplausibleMotion as error:
            problems.append(f"{entry.name}: {error}")
    if not problems:
        return []
    return [f"{len(problems)} clips hold motions of no person; {problems[0]}"]


def _rows(packed: PackedClips, entry: Entry) -> Tensor:
    return packed.rows[entry.start : entry.start + entry.length]
