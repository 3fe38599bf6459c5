"""A folder of BVH files and a table of captions to a dataset in the HumanML3D layout."""

import contextlib
import dataclasses
import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data_loaders.skeleton import HUMANML
from prepare.bvh.caption_table import CaptionTable, FileCaptions, read_caption_table
from prepare.bvh.clip import detect_up_axis
from prepare.bvh.convert import ClipOptions, Job, Outcome, convert_file
from prepare.bvh.files import SUFFIXES, BvhDirOptions, find_files, match_files
from prepare.bvh.joint_maps import JointMap, load_joint_map
from prepare.bvh.splits import SplitOptions, assign_splits
from prepare.workers import JobOptions, run_jobs
from prepare.write_dataset import SPLITS, ClipEntry, DatasetWriter, collect_notes
from utils.errors import UserError
from utils.options import option
from utils.outputs import OutOptions

UP_AXIS_VOTERS = 16
WORTHWHILE = 40  # files per process: less work than that is done before a process has started


@dataclass
class Options(ClipOptions, SplitOptions, BvhDirOptions, JobOptions, OutOptions):
    captions: str = option("", "CSV table of captions", required=True)
    joint_map: str = option("", "YAML file: HumanML3D joint -> source joint or weighted mix")

    def validate(self) -> None:
        ClipOptions.validate(self)
        SplitOptions.validate(self)


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


def build_dataset(options: Options) -> Report:
    """Write the dataset folder. Raises UserError when nothing of use can be written."""
    root = Path(options.bvh_dir)
    joint_map = load_joint_map(options.joint_map) if options.joint_map else None
    files = find_files(root, SUFFIXES[options.input_format])
    table = read_caption_table(options.captions)
    captions = captions_by_path(options, files, table)
    assign_splits(captions, options, root)  # so that mistakes in tables are told before the work
    check_notes(captions)
    if options.up_axis == "auto":
        options = dataclasses.replace(
            options, up_axis=vote_up_axis(list(captions), joint_map, options)
        )
    info = {"made_by": "prepare.from_bvh", "options": dataclasses.asdict(options)}
    with DatasetWriter(options.out, HUMANML, options.overwrite, info) as writer:
        convert = functools.partial(
            convert_file, folder=writer.folder, joint_map=joint_map, options=options
        )
        jobs = make_jobs(captions, root)
        outcomes = list(run_jobs(convert, jobs, options.jobs, "clip", WORTHWHILE))
        register_clips(writer, outcomes, captions, options)
        clips = {split: len(writer.names(split)) for split in SPLITS}
        report = make_report(options, files, captions, table, outcomes, clips)
        writer.write_extra("report.json", dataclasses.asdict(report))
    return report


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


def make_entry(name: str, split: str, source: str, captions: FileCaptions) -> ClipEntry:
    return ClipEntry(
        name=name,
        split=split,
        captions=tuple(captions.captions),
        family=captions.family,
        labels=captions.labels,
        source=source,
    )


def check_notes(captions: dict[Path, FileCaptions]) -> None:
    """Raises UserError when one caption text is given two meanings, as read or mirrored."""
    entries = [make_entry("", "", "", entry) for entry in captions.values()]
    collect_notes([*entries, *(entry.mirrored() for entry in entries)])


def vote_up_axis(files: list[Path], joint_map: JointMap | None, options: Options) -> str:
    """The up axis of most of some clips, so that one of somebody lying down cannot mislead."""
    as_they_are = dataclasses.replace(options, up_axis="y", unit="m")
    votes: Counter[str] = Counter()
    for path in files[:: max(1, len(files) // UP_AXIS_VOTERS)]:
        with contextlib.suppress(UserError):
            votes[detect_up_axis(as_they_are.read(path, joint_map))] += 1
    return votes.most_common(1)[0][0] if votes else "auto"


def make_jobs(captions: dict[Path, FileCaptions], root: Path) -> list[Job]:
    """Clips are numbered in the order of their files, as HumanML3D numbers its clips."""
    return [
        Job(path, name=f"{number:06d}", source=path.relative_to(root).as_posix())
        for number, path in enumerate(captions)
    ]


def register_clips(
    writer: DatasetWriter,
    outcomes: list[Outcome],
    captions: dict[Path, FileCaptions],
    options: Options,
) -> None:
    """Give the usable files their splits. Raises UserError when no file is usable."""
    usable = {o.job.path: captions[o.job.path] for o in outcomes if o.written}
    if not usable:
        first = outcomes[0]
        raise UserError(
            f"none of {len(outcomes)} files is usable; {first.job.source}: {first.skipped}"
        )
    splits = assign_splits(usable, options, Path(options.bvh_dir))
    for outcome in outcomes:
        job = outcome.job
        for clip in outcome.written:
            entry = make_entry(clip.name, splits[job.path], job.source, captions[job.path])
            writer.register(entry.mirrored() if clip.mirrored else entry, clip.length)


def make_report(
    options: Options,
    files: list[Path],
    captions: dict[Path, FileCaptions],
    table: CaptionTable,
    outcomes: list[Outcome],
    clips: dict[str, int],
) -> Report:
    root = Path(options.bvh_dir)
    matched = match_files(table.files, files, root)
    return Report(
        files=len(files),
        clips=clips,
        skipped={outcome.job.source: outcome.skipped for outcome in outcomes if outcome.skipped},
        too_short=sum(outcome.too_short for outcome in outcomes),
        padded=[outcome.job.source for outcome in outcomes if outcome.change == "padded"],
        cut=[outcome.job.source for outcome in outcomes if outcome.change == "cut"],
        files_without_caption=[
            path.relative_to(root).as_posix() for path in files if path not in captions
        ],
        captions_without_file=sorted(set(table.files) - set(matched)),
        unusable_lines=table.unusable,
    )
