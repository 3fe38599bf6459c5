"""From trials and captions to a dataset folder: cut, mirror, write, and count what is missing."""

import dataclasses
import functools
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_loaders.captions import parse_captions
from data_loaders.features import mirror_joints, process_joints
from data_loaders.skeleton import HUMANML
from prepare.bvh.cmu_rates import native_fps
from prepare.cmu.humanml import Cut, HumanML
from prepare.cmu.trials import load_trial
from prepare.workers import run_jobs
from prepare.write_dataset import SPLITS, ClipEntry, DatasetWriter, NotedCaption, write_motion
from utils.errors import UserError

CUTS_FILE = "cuts.json"
WORTHWHILE = 20  # trials per process
SHORTEST = 3  # poses; of fewer nothing can be measured


@dataclass(frozen=True)
class Clip:
    """entries: the clip and, unless mirroring is off, its left-right mirror image."""

    cut: Cut
    path: Path
    entries: tuple[ClipEntry, ...]


@dataclass(frozen=True)
class Outcome:
    """rows: features written; 0 = none, and `problem` says why. poses: found of those of the cut.
    native_frames: of the whole trial."""

    rows: int = 0
    poses: int = 0
    native_frames: int = 0
    problem: str = ""


@dataclass
class Report:
    """clips: per split, mirror images included. hours, captions: without them. files: by format.

    left_out: reason -> clips. shorter: clip -> poses that its trial lacks at the end.
    unusable_lines: of caption files.
    """

    clips: dict[str, int]
    hours: float
    captions: int
    files: dict[str, int]
    left_out: dict[str, list[str]]
    shorter: dict[str, int]
    unusable_lines: list[str]

    def summary(self) -> str:
        """A few lines for the terminal."""
        counts = ", ".join(f"{split} {count}" for split, count in self.clips.items())
        files = " and ".join(f"{count} {suffix}" for suffix, count in self.files.items())
        lines = [
            f"{sum(self.clips.values())} clips ({counts}) from {files} files",
            f"{self.hours:.2f} hours and {self.captions} captions, mirror images not counted",
        ]
        reasons = sorted(self.left_out.items(), key=lambda item: -len(item[1]))
        lines += [f"{len(clips)} clips left out: {reason}" for reason, clips in reasons]
        lines += [
            f"clip {clip} is {poses} poses shorter than in HumanML3D: its trial ends before"
            for clip, poses in self.shorter.items()
        ]
        if self.unusable_lines:
            lines.append(f"{len(self.unusable_lines)} lines of caption files not usable")
        return "\n".join(lines)


def choose_clips(
    humanml: HumanML, trials: dict[str, Path], root: Path, mirror: bool
) -> tuple[list[Clip], dict[str, list[str]]]:
    """The clips that can be made, and the others by reason."""
    clips: list[Clip] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for cut in humanml.cuts:
        captions = read_captions(humanml, cut.clip)
        path = trials.get(cut.trial)
        if cut.two_people:
            left_out["two people share the trial's name"].append(cut.clip)
        elif cut.clip not in humanml.splits:
            left_out["in no split list"].append(cut.clip)
        elif not captions:
            left_out["no caption"].append(cut.clip)
        elif path is None:
            left_out["no file of the trial"].append(cut.clip)
        else:
            source = f"{path.relative_to(root).as_posix()} {cut.start}:{cut.end}"
            entry = ClipEntry(cut.clip, humanml.splits[cut.clip], captions, source=source)
            entries = (entry, mirrored(entry, humanml)) if mirror else (entry,)
            clips.append(Clip(cut, path, entries))
    return clips, dict(left_out)


def read_captions(humanml: HumanML, clip: str) -> tuple[NotedCaption, ...]:
    captions, _ = parse_captions(humanml.text(clip))
    return tuple(NotedCaption(caption) for caption in captions)


def mirrored(entry: ClipEntry, humanml: HumanML) -> ClipEntry:
    """With HumanML3D's own captions of the mirror image, else with the sides swapped."""
    own = read_captions(humanml, f"M{entry.name}")
    if own:
        return dataclasses.replace(entry, name=f"M{entry.name}", captions=own)
    return entry.mirrored()


def convert_trial(clips: list[Clip], folder: Path) -> list[Outcome]:
    """Write all clips of one trial. Worker processes call this."""
    path = clips[0].path
    try:
        trial = load_trial(path, native_fps(clips[0].cut.trial))
    except UserError as error:
        return [Outcome(problem=str(error))] * len(clips)
    outcomes = []
    for clip in clips:
        part = torch.from_numpy(trial.joints[clip.cut.start : clip.cut.end])
        versions = (part, mirror_joints(part))[: len(clip.entries)]
        try:
            if len(part) < SHORTEST:
                raise ValueError(f"the trial has {len(part)} poses there")
            motions = [process_joints(joints) for joints in versions]
        except ValueError as error:
            where = f"{path.name} {clip.cut.start}:{clip.cut.end}"
            outcomes.append(Outcome(problem=f"{where}: {error}"))
            continue
        for entry, motion in zip(clip.entries, motions, strict=True):
            rows = write_motion(folder, entry.name, motion)
        outcomes.append(Outcome(rows, len(part), trial.native_frames))
    return outcomes


def build_dataset(
    humanml: HumanML,
    trials: dict[str, Path],
    root: Path,
    writer: DatasetWriter,
    mirror: bool = True,
    workers: int = 0,
) -> Report:
    """Fill the folder of an open `writer`. Raises UserError when no clip can be made."""
    clips, left_out = choose_clips(humanml, trials, root, mirror)
    if not clips:
        raise nothing_made(humanml, left_out)
    by_trial: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_trial[clip.cut.trial].append(clip)
    made: list[tuple[Clip, Outcome]] = []
    convert = functools.partial(convert_trial, folder=writer.folder)
    jobs = list(by_trial.values())
    for job, outcomes in zip(
        jobs, run_jobs(convert, jobs, workers, "trial", WORTHWHILE), strict=True
    ):
        for clip, outcome in zip(job, outcomes, strict=True):
            if outcome.problem:
                left_out.setdefault(outcome.problem, []).append(clip.cut.clip)
                continue
            made.append((clip, outcome))
            for entry in clip.entries:
                writer.register(entry, outcome.rows)
    if not made:
        raise nothing_made(humanml, left_out)
    report = make_report(made, left_out, humanml)
    writer.write_extra(CUTS_FILE, {clip.cut.clip: record(clip, outcome) for clip, outcome in made})
    writer.write_extra("report.json", dataclasses.asdict(report))
    return report


def nothing_made(humanml: HumanML, left_out: dict[str, list[str]]) -> UserError:
    reasons = ", ".join(f"{len(names)} {reason}" for reason, names in left_out.items())
    return UserError(f"none of {len(humanml.cuts)} clips can be made: {reasons}")


def record(clip: Clip, outcome: Outcome) -> dict[str, Any]:
    """What `verify` needs to know of a clip that was made."""
    cut = dataclasses.asdict(clip.cut)
    return cut | {
        "native_fps": native_fps(clip.cut.trial),
        "native_frames": outcome.native_frames,
    }


def make_report(
    made: list[tuple[Clip, Outcome]], left_out: dict[str, list[str]], humanml: HumanML
) -> Report:
    names = [entry.name for clip, _ in made for entry in clip.entries]
    splits = Counter(entry.split for clip, _ in made for entry in clip.entries)
    lacking = {c.cut.clip: c.cut.end - c.cut.start - outcome.poses for c, outcome in made}
    return Report(
        clips={split: splits[split] for split in SPLITS},
        hours=sum(outcome.rows for _, outcome in made) / HUMANML.fps / 3600,
        captions=sum(len(clip.entries[0].captions) for clip, _ in made),
        files=dict(Counter(path.suffix for path in {clip.path for clip, _ in made})),
        left_out=left_out,
        shorter={name: poses for name, poses in lacking.items() if poses > 0},
        unusable_lines=[
            f"{name} {problem}"
            for name in names
            for problem in parse_captions(humanml.text(name))[1]
        ],
    )
