"""Turn a folder of BVH motion capture files and a table of captions into a dataset.

    python -m prepare.from_bvh --bvh_dir DIR --captions captions.csv --out dataset/NAME

captions.csv has the columns `file` and `caption`, one row per caption, and optionally `facts`,
`meaning`, `family`, `split`, `labels` (see prepare/bvh/caption_table.py). The result has the layout
of HumanML3D (see prepare/write_dataset.py), so `--dataset NAME` opens it everywhere.

Each clip is read, mapped to the 22 joints of HumanML3D (built-in maps for Bandai-Namco, CMU as
converted by cgspeed, Mixamo and LAFAN1, or --joint_map FILE.yaml), resampled to 20 fps, turned to
Y up, moved onto the reference body, set on the floor facing +Z, and written together with its
left-right mirror image. Files that cannot be used are left out; OUT/report.json gives the reasons.

Lengths count feature rows, one fewer than poses: under 40 (2 s) a clip is skipped, or held at its
last pose with --pad_short; up to 199 it stays; beyond that --long cuts it to 196 or into pieces.
"""

from utils.start import entry_point

import contextlib
import dataclasses
import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data_loaders.features import mirror_joints, process_joints
from data_loaders.skeleton import HUMANML
from prepare.bvh.caption_table import (
    CaptionTable,
    FileCaptions,
    match_files,
    read_caption_table,
    read_split_file,
)
from prepare.bvh.clip import detect_up_axis, load_clip, metres_per_unit
from prepare.bvh.joint_maps import JointMap, load_joint_map
from prepare.write_dataset import SPLITS, ClipEntry, DatasetWriter, write_motion
from utils.errors import UserError
from utils.options import option, parse_options

LONGEST_KEPT = HUMANML.max_length + 3  # the loader crops lengths down to a multiple of four
UP_AXIS_VOTERS = 16


@dataclass
class Options:
    bvh_dir: str = option("", "folder of BVH files, searched recursively", required=True)
    captions: str = option("", "CSV table of captions", required=True)
    out: str = option("", "dataset folder to make", required=True, free="always")
    overwrite: bool = option(False, "replace a dataset that is already there", free="always")
    joint_map: str = option("", "YAML file: HumanML3D joint -> source joint or weighted mix")
    up_axis: str = option("auto", "axis that points up", choices=("auto", "y", "z"))
    unit: str = option("auto", "auto, m, cm, mm, inch, cmu, or the metres of one unit")
    mirror: bool = option(True, "also write the left-right mirror image of every clip")
    pad_short: bool = option(False, "hold the last pose of clips that are too short")
    min_seconds: float = option(1.0, "shortest clip that --pad_short accepts", minimum=0.1)
    long: str = option(
        "crop", "keep the start of a long clip, or all pieces", choices=("crop", "split")
    )
    split_file: str = option("", "CSV table with the columns file, split")
    split_seed: int = option(0, "seed of the random split")
    val_share: float = option(0.05, "share of the files for validation", minimum=0, maximum=1)
    test_share: float = option(0.15, "share of the files for testing", minimum=0, maximum=1)
    jobs: int = option(0, "worker processes; 0 = one per core", minimum=0, free="always")

    def validate(self) -> None:
        if self.val_share + self.test_share >= 1:
            raise UserError("--val_share and --test_share leave nothing for training")
        if self.unit != "auto":
            metres_per_unit(self.unit)


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its clips and their lengths, or the reason why there are none."""

    source: str
    written: tuple[tuple[ClipEntry, int], ...] = ()
    change: str = ""  # "padded" or "cut"
    skipped: str = ""
    too_short: bool = False


class TooShort(UserError):
    """A clip below the minimum length."""


def convert_clip(
    job: tuple[Path, ClipEntry], folder: Path, joint_map: JointMap | None, options: Options
) -> Outcome:
    """Read one BVH file and write its clips; a problem of the file becomes the outcome's reason."""
    path, entry = job
    try:
        joints = load_clip(path, joint_map, up_axis=options.up_axis, unit=options.unit)
        pieces = fit_length(joints, options)
        clips = []
        for number, piece in enumerate(pieces, start=1):
            suffix = f"_{number}" if len(pieces) > 1 else ""
            named = dataclasses.replace(entry, name=entry.name + suffix)
            clips.append((named, process_joints(piece)))
            if options.mirror:
                mirrored = mirror_joints(torch.from_numpy(piece))
                clips.append((named.mirrored(), process_joints(mirrored)))
    except TooShort as reason:
        return Outcome(entry.source, skipped=str(reason), too_short=True)
    except (UserError, ValueError) as reason:
        return Outcome(entry.source, skipped=str(reason))
    written = tuple((e, write_motion(folder, e.name, motion)) for e, motion in clips)
    kept = len(pieces[0])
    change = "padded" if kept > len(joints) else "cut" if kept < len(joints) else ""
    return Outcome(entry.source, written, change)


def fit_length(joints: np.ndarray, options: Options) -> list[np.ndarray]:
    """Cut or hold a clip [T, 22, 3] so that its T - 1 feature rows suit the loader.

    Raises TooShort when it is below the minimum length and may not be padded.
    """
    rows, shortest, longest = len(joints) - 1, HUMANML.min_length, HUMANML.max_length
    if rows < shortest:
        needed = options.min_seconds * HUMANML.fps if options.pad_short else shortest
        if rows < needed:
            raise TooShort(f"{rows} frames at 20 fps, fewer than {needed:g}")
        return [np.concatenate([joints, np.repeat(joints[-1:], shortest - rows, axis=0)])]
    if rows <= LONGEST_KEPT:
        return [joints]
    starts = range(0, rows, longest) if options.long == "split" else [0]
    pieces = [joints[start : start + longest + 1] for start in starts]
    return [piece for piece in pieces if len(piece) > shortest]


def find_files(root: Path) -> list[Path]:
    """Raises UserError when there is no BVH file."""
    if not root.is_dir():
        raise UserError(f"--bvh_dir {root} is not a folder")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() == ".bvh")
    if not files:
        raise UserError(f"--bvh_dir {root} holds no .bvh file, not even in its subfolders")
    return files


def captions_by_path(
    options: Options, files: list[Path], table: CaptionTable
) -> dict[Path, FileCaptions]:
    """Captions of the files that have some, in the order of `files`.

    Raises UserError when no file has one, or when two rows put a file in different splits.
    """
    matches = match_files(table.files, files, Path(options.bvh_dir))
    if not matches:
        raise UserError(
            f"no file in --bvh_dir {options.bvh_dir} is named in --captions {options.captions}; "
            f"the folder has {files[0].name}, the table {next(iter(table.files))}"
        )
    found: dict[Path, FileCaptions] = {}
    for name, path in matches.items():
        try:
            found.setdefault(path, FileCaptions()).merge(table.files[name])
        except ValueError as error:
            raise UserError(f"--captions {options.captions}: {path.name}: {error}") from None
    return {path: found[path] for path in files if path in found}


def assign_splits(captions: dict[Path, FileCaptions], options: Options) -> dict[Path, str]:
    """Split of each file: from --split_file, else from the table, else drawn at random."""
    given = {path: entry.split for path, entry in captions.items() if entry.split}
    if options.split_file:
        listed = read_split_file(options.split_file)
        matches = match_files(listed, captions, Path(options.bvh_dir))
        given |= {path: listed[name] for name, path in matches.items()}
    rest = [path for path in captions if path not in given]
    order = np.random.default_rng(options.split_seed).permutation(len(rest))
    num_val, num_test = (
        round(share * len(rest)) for share in (options.val_share, options.test_share)
    )
    for rank, index in enumerate(order):
        split = "val" if rank < num_val else "test" if rank < num_val + num_test else "train"
        given[rest[index]] = split
    return given


def vote_up_axis(files: list[Path], joint_map: JointMap | None) -> str:
    """The up axis of most of some clips, so that one of somebody lying down cannot mislead."""
    votes: Counter[str] = Counter()
    for path in files[:: max(1, len(files) // UP_AXIS_VOTERS)]:
        with contextlib.suppress(UserError):
            votes[detect_up_axis(load_clip(path, joint_map, up_axis="y", unit="m"))] += 1
    return votes.most_common(1)[0][0] if votes else "auto"


def convert_all(
    convert: Callable[[tuple[Path, ClipEntry]], Outcome],
    jobs: list[tuple[Path, ClipEntry]],
    workers: int,
) -> Iterator[Outcome]:
    """Outcomes in the order of `jobs`, with a progress bar."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers == 1:
        yield from tqdm(map(convert, jobs), total=len(jobs), unit="clip")
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        yield from tqdm(pool.map(convert, jobs, chunksize=8), total=len(jobs), unit="clip")


def make_jobs(
    captions: dict[Path, FileCaptions], splits: dict[Path, str], root: Path
) -> list[tuple[Path, ClipEntry]]:
    """Clips are numbered in the order of their files, as HumanML3D numbers its clips."""
    return [
        (
            path,
            ClipEntry(
                name=f"{number:06d}",
                split=splits[path],
                captions=tuple(entry.captions),
                family=entry.family,
                labels=entry.labels,
                source=path.relative_to(root).as_posix(),
            ),
        )
        for number, (path, entry) in enumerate(captions.items())
    ]


@dataclass
class Report:
    """Counts, and names with reasons, of everything that was left out or changed."""

    files: int
    clips: dict[str, int]
    skipped: dict[str, str]
    too_short: int
    padded: list[str]
    cut: list[str]
    files_without_caption: list[str]
    captions_without_file: list[str]
    unusable_lines: list[str]

    def summary(self) -> str:
        """A few lines for the terminal."""
        counts = ", ".join(f"{split} {count}" for split, count in self.clips.items())
        lines = [f"{sum(self.clips.values())} clips ({counts}) from {self.files} files"]
        unusable = len(self.skipped) - self.too_short
        for count, what in (
            (self.too_short, "files skipped: too short"),
            (unusable, "files skipped: not usable"),
            (len(self.padded), "files held at their last pose"),
            (len(self.cut), "files cut"),
            (len(self.files_without_caption), "files without a caption"),
            (len(self.captions_without_file), "names in the caption table without a file"),
            (len(self.unusable_lines), "lines of the caption table not usable"),
        ):
            if count:
                lines.append(f"{count} {what}")
        return "\n".join(lines)


def make_report(
    files: list[Path],
    captions: dict[Path, FileCaptions],
    table: CaptionTable,
    outcomes: list[Outcome],
    root: Path,
) -> Report:
    entries = [entry for outcome in outcomes for entry, _ in outcome.written]
    without = [path.relative_to(root).as_posix() for path in files if path not in captions]
    return Report(
        files=len(files),
        clips={split: sum(entry.split == split for entry in entries) for split in SPLITS},
        skipped={outcome.source: outcome.skipped for outcome in outcomes if outcome.skipped},
        too_short=sum(outcome.too_short for outcome in outcomes),
        padded=[outcome.source for outcome in outcomes if outcome.change == "padded"],
        cut=[outcome.source for outcome in outcomes if outcome.change == "cut"],
        files_without_caption=without,
        captions_without_file=sorted(set(table.files) - set(match_files(table.files, files, root))),
        unusable_lines=table.unusable,
    )


def build_dataset(options: Options) -> Report:
    """Write the dataset folder. Raises UserError when nothing of use can be written."""
    root = Path(options.bvh_dir)
    joint_map = load_joint_map(options.joint_map) if options.joint_map else None
    files = find_files(root)
    table = read_caption_table(options.captions)
    captions = captions_by_path(options, files, table)
    jobs = make_jobs(captions, assign_splits(captions, options), root)
    if options.up_axis == "auto":
        options = dataclasses.replace(options, up_axis=vote_up_axis(list(captions), joint_map))
    info = {"made_by": "prepare.from_bvh", "options": dataclasses.asdict(options)}
    with DatasetWriter(options.out, HUMANML, options.overwrite, info) as writer:
        convert = functools.partial(
            convert_clip, folder=writer.folder, joint_map=joint_map, options=options
        )
        outcomes = list(convert_all(convert, jobs, options.jobs))
        for outcome in outcomes:
            for entry, length in outcome.written:
                writer.register(entry, length)
        if not writer.entries:
            raise UserError(f"none of {len(jobs)} files is usable; {outcomes[0].skipped}")
        report = make_report(files, captions, table, outcomes, root)
        writer.write_extra("report.json", dataclasses.asdict(report))
    return report


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    report = build_dataset(options)
    print(report.summary())
    print(f"wrote {options.out}; reasons in {Path(options.out) / 'report.json'}")


if __name__ == "__main__":
    main()
