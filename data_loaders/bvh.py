"""Read BVH files: hierarchy, motion block and global joint positions."""

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.rotations import quat_about, quat_multiply, quat_rotate

_MOTION = re.compile(
    r"^\s*MOTION\s+Frames:\s*(?P<frames>\d+)\s+Frame\s+Time:\s*(?P<time>[^\s]+)[^\n]*\n?",
    re.IGNORECASE | re.MULTILINE,
)
_END_SITE = -2
_CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "xyz")


@dataclass(frozen=True)
class Bvh:
    """One BVH file. End sites are not joints.

    parents: index of each joint's parent, -1 for a root; a parent precedes its children.
    offsets: [J, 3] in file units. channels: per joint, lower case, in file order.
    frame_time: seconds; a rounded value such as 0.0333333 is taken as the 1/30 it stands for.
    motion: [T, C] float64, the channels of all joints in order (degrees and file units).
    """

    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    frame_time: float
    motion: np.ndarray

    def global_positions(self) -> np.ndarray:
        """Forward kinematics: joint positions [T, J, 3] in file units and axes.

        Position channels replace the joint's OFFSET. Rotation channels apply in file order:
        "Zrotation Xrotation Yrotation" is R = Rz Rx Ry on column vectors.
        """
        translations, rotations = self._local_transforms()
        positions, turns = [], []
        for joint, parent in enumerate(self.parents):
            position, turn = translations[:, joint], rotations[:, joint]
            if parent >= 0:
                position = positions[parent] + quat_rotate(turns[parent], position)
                turn = quat_multiply(turns[parent], turn)
            positions.append(position)
            turns.append(turn)
        return torch.stack(positions, dim=1).numpy()

    def _local_transforms(self) -> tuple[Tensor, Tensor]:
        """Translations [T, J, 3] and quaternions [T, J, 4] relative to the parent, float64."""
        motion = torch.from_numpy(self.motion)
        translations = torch.from_numpy(self.offsets).repeat(len(motion), 1, 1)
        rotations = torch.zeros(len(motion), len(self.channels), 4, dtype=motion.dtype)
        rotations[..., 0] = 1.0
        # The n-th turns about one axis are computed for all joints at once.
        turns: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
        columns = itertools.count()
        for joint, channels in enumerate(self.channels):
            place = itertools.count()
            for channel in channels:
                axis, column = channel[0], next(columns)
                if channel.endswith("position"):
                    translations[:, joint, "xyz".index(axis)] = motion[:, column]
                else:
                    turns[next(place), axis].append((joint, column))
        for (_, axis), members in sorted(turns.items()):
            joints, chosen = (list(indices) for indices in zip(*members, strict=True))
            turn = quat_about(axis, motion[:, chosen].deg2rad())
            rotations[:, joints] = quat_multiply(rotations[:, joints], turn)
        return translations, rotations


def parse_bvh(path: str | Path) -> Bvh:
    """Raises UserError, naming the file, when it is not a complete and finite BVH file."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    try:
        return _parse(text)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _parse(text: str) -> Bvh:
    motion_start = _MOTION.search(text)
    if not motion_start:
        raise ValueError("no MOTION block with `Frames:` and `Frame Time:`")
    hierarchy = _parse_hierarchy(text[: motion_start.start()])
    frames = int(motion_start["frames"])
    if frames == 0:
        raise ValueError("the motion has zero frames")
    frame_time = _exact_frame_time(motion_start["time"])
    motion = _parse_motion(text[motion_start.end() :])
    width = sum(map(len, hierarchy.channels))
    if motion.shape != (frames, width):
        raise ValueError(
            f"the motion block holds {motion.shape[0]} rows of {motion.shape[1]} numbers; "
            f"the header announces {frames} rows of {width}"
        )
    if not np.isfinite(motion).all():
        raise ValueError(f"frame {np.argwhere(~np.isfinite(motion))[0, 0]} holds NaN or infinity")
    return Bvh(
        joint_names=tuple(hierarchy.names),
        parents=tuple(hierarchy.parents),
        offsets=np.array(hierarchy.offsets),
        channels=tuple(hierarchy.channels),
        frame_time=frame_time,
        motion=motion,
    )


@dataclass
class _Hierarchy:
    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[tuple[str, ...]] = field(default_factory=list)


def _parse_hierarchy(header: str) -> _Hierarchy:
    """Walk the header line by line; names may hold spaces, braces may share a line."""
    found = _Hierarchy()
    open_blocks: list[int] = []  # joint of each open brace
    current = _END_SITE
    lines = re.sub(r"([{}])", r"\n\1\n", header).splitlines()
    for keyword, *rest in (line.split() for line in lines if line.strip()):
        match keyword.upper():
            case "HIERARCHY":
                continue
            case "ROOT" | "JOINT":
                current = len(found.names)
                found.names.append(" ".join(rest))
                found.parents.append(open_blocks[-1] if open_blocks else -1)
                found.offsets.append([])
                found.channels.append(())
            case "END":
                current = _END_SITE
            case "{":
                open_blocks.append(current)
            case "}":
                if not open_blocks:
                    raise ValueError("the hierarchy closes more braces than it opens")
                open_blocks.pop()
            case "OFFSET" if open_blocks:
                if open_blocks[-1] != _END_SITE:
                    found.offsets[open_blocks[-1]] = _three_numbers(rest)
            case "CHANNELS" if open_blocks and open_blocks[-1] != _END_SITE:
                found.channels[open_blocks[-1]] = _channel_names(rest)
            case _:
                raise ValueError(f"unexpected {keyword!r} in the hierarchy")
    if open_blocks or not found.names:
        raise ValueError("the hierarchy is empty or a brace is not closed")
    for name, offset in zip(found.names, found.offsets, strict=True):
        if not offset:
            raise ValueError(f"joint {name} has no OFFSET")
    return found


def _three_numbers(words: list[str]) -> list[float]:
    if len(words) != 3:
        raise ValueError(f"OFFSET needs three numbers, got {' '.join(words)!r}")
    return [float(word) for word in words]


def _channel_names(words: list[str]) -> tuple[str, ...]:
    count, names = "".join(words[:1]), tuple(word.lower() for word in words[1:])
    if count != str(len(names)) or not set(names) <= set(_CHANNELS):
        raise ValueError(f"CHANNELS is malformed: {' '.join(words)!r}")
    return names


def _parse_motion(block: str) -> np.ndarray:
    rows = block.strip().splitlines()
    if not rows:
        raise ValueError("the motion block is empty")
    try:
        return np.loadtxt(rows, ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"the motion block is damaged ({error})") from None


def _exact_frame_time(text: str) -> float:
    """`text` in seconds, or 1/n when it equals that up to its last printed digit.

    Otherwise 0.0333333 would put the last of 301 frames just before 10 s and lose an output frame.
    """
    frame_time = float(text)
    if not 0 < frame_time <= 1:
        raise ValueError(f"Frame Time {text} is not a number of seconds between 0 and 1")
    last_digit = 10.0 ** int(Decimal(text).as_tuple().exponent)
    exact = 1 / max(round(1 / frame_time), 1)
    return exact if abs(frame_time - exact) < last_digit else frame_time
