"""One BVH or AMC file to the clips of a dataset: read, cut, mirror, write."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_loaders.features import ProcessedMotion, mirror_joints, process_joints
from prepare.bvh.clip import load_clip, metres_per_unit, positive_rate
from prepare.bvh.files import SUFFIXES
from prepare.bvh.joint_maps import JointMap
from prepare.bvh.lengths import LengthOptions, TooShort, fit_length
from prepare.write_dataset import write_motion
from utils.errors import UserError
from utils.options import option


@dataclass
class MirrorOptions:
    """For every script that makes a dataset from motion capture."""

    mirror: bool = option(True, "also write the left-right mirror image of every clip")


@dataclass
class ClipOptions(MirrorOptions, LengthOptions):
    up_axis: str = option("auto", "axis that points up", choices=("auto", "y", "z"))
    unit: str = option("auto", "auto, m, cm, mm, inch, cmu, or the metres of one unit")
    input_format: str = option("bvh", "BVH files, or AMC files with ASF", choices=tuple(SUFFIXES))
    frame_rate: str = option("auto", "auto (what BVH files state), cmu, or frames per second")

    def validate(self) -> None:
        if self.unit != "auto":
            metres_per_unit(self.unit)
        if self.frame_rate not in ("auto", "cmu"):
            positive_rate(self.frame_rate)
        if self.input_format == "asf_amc" and self.frame_rate == "auto":
            raise UserError(
                "AMC files do not say their frame rate; give --frame_rate 120, or for the CMU "
                "database, which has 60 and 120, --frame_rate cmu"
            )
        if self.input_format == "asf_amc" and self.unit != "auto":
            raise UserError("ASF files state their unit; leave --unit out")

    def read(self, path: Path, joint_map: JointMap | None) -> np.ndarray:
        """Joints [T, 22, 3] at 20 fps. Raises UserError as `load_clip` does."""
        return load_clip(
            path,
            joint_map,
            up_axis=self.up_axis,
            unit=self.unit,
            frame_rate=self.frame_rate,
        )


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
    """Read one file and write its clips; a problem of the file becomes the outcome's reason."""
    try:
        joints = options.read(job.path, joint_map)
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
