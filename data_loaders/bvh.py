"""Read BVH files: hierarchy, motion block and global joint positions."""

import io
import itertools
import re
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.rotations import quat_about, quat_multiply, quat_rotate

# What no recording of a person exceeds; beyond, a file is damaged or would take all memory.
MAX_BYTES = 2**29
MAX_JOINTS = 1000
MAX_POSES = 6_000_000  # joints times frames: 10 minutes of 80 joints at 120 fps, about 1 GB
MAX_UNITS = 1e7  # of an offset or a position: ten kilometres even in millimetres
MAX_DEGREES = 1e6

_MOTION = re.compile(
    r"^[ \t]*MOTION\s+Frames:\s*(?P<frames>\d{1,12})\s+Frame\s+Time:\s*(?P<time>\S+)[^\n]*\n?",
    re.IGNORECASE | re.MULTILINE,
)
_CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "xyz")


@dataclass(frozen=True)
class Bvh:
    """One BVH file. The end site of a joint X is a joint without channels, named ``X_end``.

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
    """Read a file in time linear in its size.

    Raises UserError, naming the file and where it can the line, when it is not a complete BVH file
    or holds a number that no recording of a person holds (NaN, infinity, beyond the limits above).
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise UserError(
                f"{path} is larger than {MAX_BYTES >> 20} MB; cut it into shorter takes"
            )
        text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    try:
        return _parse(text)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _parse(text: str) -> Bvh:
    header = _MOTION.search(text)
    if not header:
        raise ValueError("no MOTION block with `Frames:` and `Frame Time:`")
    hierarchy = _parse_hierarchy(text[: header.start()])
    frames = int(header["frames"])
    if frames == 0:
        raise ValueError("the motion has zero frames")
    if frames * len(hierarchy.names) > MAX_POSES:
        raise ValueError(
            f"{frames} frames of {len(hierarchy.names)} joints are too many to hold in memory; "
            "cut the file into shorter takes"
        )
    frame_time = _exact_frame_time(header["time"])
    first_line = text.count("\n", 0, header.end()) + 1
    motion, lines = _parse_motion(text[header.end() :], first_line)
    width = sum(map(len, hierarchy.channels))
    if motion.shape != (frames, width):
        raise ValueError(
            f"the motion block holds {motion.shape[0]} rows of {motion.shape[1]} numbers; "
            f"the header announces {frames} rows of {width}"
        )
    hierarchy.check_ranges(motion, lines)
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
    """The joints read so far; open_blocks: the joint of each open brace."""

    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[tuple[str, ...]] = field(default_factory=list)
    open_blocks: list[int] = field(default_factory=list)

    def read(self, words: list[str]) -> None:
        """Take in one statement. Raises ValueError when it cannot stand here."""
        keyword, rest = words[0].upper(), words[1:]
        inside = self.open_blocks[-1] if self.open_blocks else -1
        match keyword:
            case "HIERARCHY":
                return
            case "ROOT" | "JOINT":
                self._add(" ".join(rest), inside, offset=[])
            case "END" if inside >= 0:
                self._add(f"{self.names[inside]}_end", inside, offset=[0.0, 0.0, 0.0])
            case "{" if self.names:
                self.open_blocks.append(len(self.names) - 1)
            case "}" if self.open_blocks:
                self.open_blocks.pop()
            case "}":
                raise ValueError("the hierarchy closes more braces than it opens")
            case "OFFSET" if inside >= 0:
                self.offsets[inside] = _three_numbers(rest)
            case "CHANNELS" if inside >= 0:
                self.channels[inside] = _channel_names(rest)
            case _:
                raise ValueError(f"unexpected {words[0]!r} in the hierarchy")

    def _add(self, name: str, parent: int, offset: list[float]) -> None:
        if len(self.names) == MAX_JOINTS:
            raise ValueError(f"the hierarchy has more than {MAX_JOINTS} joints")
        self.names.append(name)
        self.parents.append(parent)
        self.offsets.append(offset)
        self.channels.append(())

    def check_complete(self) -> None:
        if self.open_blocks or not self.names:
            raise ValueError("the hierarchy is empty or a brace is not closed")
        for name, offset in zip(self.names, self.offsets, strict=True):
            if not offset:
                raise ValueError(f"joint {name} has no OFFSET")

    def check_ranges(self, motion: np.ndarray, lines: array) -> None:
        """Raises ValueError for the first number of `motion` [T, C] beyond the limits, or NaN."""
        pairs = zip(self.names, self.channels, strict=True)
        columns = [(joint, channel) for joint, channels in pairs for channel in channels]
        limits = [MAX_DEGREES if c.endswith("rotation") else MAX_UNITS for _, c in columns]
        within = np.abs(motion) <= np.array(limits)
        if within.all():
            return
        row, column = np.unravel_index(within.argmin(), within.shape)
        joint, channel = columns[column]
        raise ValueError(
            f"line {lines[row]}: {channel} of {joint} is {motion[row, column]:g}, which no "
            f"recording holds (limit {limits[column]:g})"
        )


def _parse_hierarchy(header: str) -> _Hierarchy:
    """Walk the header line by line; names may hold spaces, braces may share a line."""
    found = _Hierarchy()
    for number, line in enumerate(header.split("\n"), start=1):
        try:
            for statement in re.split(r"([{}])", line):
                if words := statement.split():
                    found.read(words)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    found.check_complete()
    return found


def _three_numbers(words: list[str]) -> list[float]:
    if len(words) != 3:
        raise ValueError(f"OFFSET needs three numbers, got {' '.join(words)!r}")
    numbers = [float(word) for word in words]
    if not all(abs(number) <= MAX_UNITS for number in numbers):
        raise ValueError(f"OFFSET {' '.join(words)} holds NaN or exceeds {MAX_UNITS:g}")
    return numbers


def _channel_names(words: list[str]) -> tuple[str, ...]:
    count, names = "".join(words[:1]), tuple(word.lower() for word in words[1:])
    if count != str(len(names)) or not set(names) <= set(_CHANNELS):
        raise ValueError(f"CHANNELS is malformed: {' '.join(words)!r}")
    return names


def _parse_motion(block: str, first_line: int) -> tuple[np.ndarray, array]:
    """Rows [T, C] of the motion block, blank lines left out, and the line number of each."""
    lines = array("q")

    def rows() -> Iterator[str]:
        for number, line in enumerate(io.StringIO(block), start=first_line):
            if not line.isspace():
                lines.append(number)
                yield line

    if not block or block.isspace():
        raise ValueError("the motion block is empty")
    try:
        return np.loadtxt(rows(), ndmin=2, comments=None), lines
    except ValueError as error:
        raise ValueError(f"line {lines[-1]}: the motion block is damaged ({error})") from None


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
