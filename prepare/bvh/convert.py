"""One BVH file to the clips of a dataset: read, cut, mirror, write."""

from dataclasses import dataclass
from pathlib import Path

import torch

from data_loaders.features import ProcessedMotion, mirror_joints, process_joints
from prepare.bvh.clip import load_clip, metres_per_unit
from prepare.bvh.joint_maps import JointMap
from prepare.bvh.lengths import LengthOptions, TooShort, fit_length
from prepare.write_dataset import write_motion
from utils.errors import UserError
from utils.options import option


@dataclass
class ClipOptions(LengthOptions):
    up_axis: str = option("auto", "axis that points up", choices=("auto", "y", "z"))
    unit: str = option("auto", "auto, m, cm, mm, inch, cmu, or the metres of one unit")
    mirror: bool = option(True, "also write the left-right mirror image of every clip")

    def validate(self) -> None:
        if self.unit != "auto":
            metres_per_unit(self.unit)


@dataclass(frozen=True)
class Job:
    """A file, the name of its clip, and the path by which reports name it."""

    path: Path
    name: str
    source: str


@dataclass(frozen=True)
class WrittenClip:
    """A clip, or a piece of one, of `length` feature rows; a mirror image bears the same name."""

    name: str
    length: int
    mirrored: bool = False


@dataclass(frozen=True)
class Clip:
    """A clip that is yet to be written."""

    name: str
    motion: ProcessedMotion
    mirrored: bool = False

    def write(self, folder: Path) -> WrittenClip:
        file_name = f"M{self.name}" if self.mirrored else self.name
        return WrittenClip(self.name, write_motion(folder, file_name, self.motion), self.mirrored)


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its clips, or the reason why there are none."""

    job: Job
    written: tuple[WrittenClip, ...] = ()
    change: str = ""  # "padded" or "cut"
    skipped: str = ""
    too_short: bool = False


def convert_file(
    job: Job, folder: Path, joint_map: JointMap | None, options: ClipOptions
) -> Outcome:
    """Read one BVH file and write its clips; a problem of the file becomes the outcome's reason."""
    try:
        joints = load_clip(job.path, joint_map, up_axis=options.up_axis, unit=options.unit)
        pieces = fit_length(joints, options)
        clips: list[Clip] = []
        for number, piece in enumerate(pieces, start=1):
            name = f"{job.name}_{number}" if len(pieces) > 1 else job.name
            clips.append(Clip(name, process_joints(piece)))
            if options.mirror:
                image = mirror_joints(torch.from_numpy(piece))
                clips.append(Clip(name, process_joints(image), mirrored=True))
        written = tuple(clip.write(folder) for clip in clips)
    except TooShort as reason:
        return Outcome(job, skipped=str(reason), too_short=True)
    except (UserError, ValueError) as reason:
        return Outcome(job, skipped=str(reason).removeprefix(f"{job.path}: "))
    kept = len(pieces[0])
    change = "padded" if kept > len(joints) else "cut" if kept < len(joints) else ""
    return Outcome(job, written, change)
