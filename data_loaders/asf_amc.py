"""Read ASF/AMC motion capture (Acclaim, as the CMU database has it): one skeleton, many motions.

An ASF file describes a body by its bones: unit direction and length in the rest pose, an axis frame
and degrees of freedom. An AMC file holds the angles of every frame. A bone starts where its parent
ends, so a joint here is the end of a bone and carries the bone's name; ``root`` is where all begin.

With C the rotation of a bone's axis frame and M the turns of a frame, a bone is turned against its
parent by C M C^-1. Turns are taken about fixed axes in the order in which they are listed: "rx ry
rz" is M = Rz Ry Rx on column vectors. Limits, masses and everything else of a file are ignored.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_loaders.bvh import MAX_BYTES, MAX_DEGREES
from utils.errors import UserError
from utils.rotations import quat_about, quat_inverse, quat_multiply, quat_rotate

INCH = 0.0254
ROOT = "root"
TURNS, MOVES = ("rx", "ry", "rz"), ("tx", "ty", "tz")

Line = tuple[int, list[str]]  # its number in the file, and its words


@dataclass(frozen=True)
class Asf:
    """One skeleton.

    bone_names: ``root`` first, a parent before its children. parents: -1 for the root. offsets:
    [J, 3] float64, each bone in the rest pose, file units (for the root: where it starts). axes:
    [J, 4] quaternions of the axis frames. dofs: per bone the columns of a frame, lower case.
    metres: length of one unit; ``length 0.45`` means units of 1 / 0.45 inch. degrees: of angles.
    """

    bone_names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    axes: np.ndarray
    dofs: tuple[tuple[str, ...], ...]
    metres: float
    degrees: bool


@dataclass(frozen=True)
class Amc:
    """One motion. motion: [T, C] float64, the columns of all bones in order, as in the file.

    The file does not say how long a frame lasts; frame_time (seconds) is what the reader was told.
    """

    skeleton: Asf
    frame_time: float
    motion: np.ndarray
    degrees: bool

    @property
    def joint_names(self) -> tuple[str, ...]:
        return self.skeleton.bone_names

    def global_positions(self) -> np.ndarray:
        """Forward kinematics: the ends of the bones [T, J, 3] in metres, in the file's axes."""
        body, motion = self.skeleton, torch.from_numpy(self.motion)
        angles = motion.deg2rad() if self.degrees else motion
        columns = iter(zip(motion.unbind(1), angles.unbind(1), strict=True))
        positions: list[Tensor] = []
        rotations: list[Tensor] = []
        for parent, dofs, axis, offset in zip(
            body.parents,
            body.dofs,
            torch.from_numpy(body.axes),
            torch.from_numpy(body.offsets),
            strict=True,
        ):
            turn, shift = motion.new_tensor([1.0, 0.0, 0.0, 0.0]), offset.expand(len(motion), 3)
            for dof in dofs:
                distance, angle = next(columns)
                if dof in TURNS:
                    turn = quat_multiply(quat_about(dof[1], angle), turn)
                else:
                    unit = torch.eye(3, dtype=motion.dtype)[MOVES.index(dof)]
                    shift = shift + distance[:, None] * unit
            turn = quat_multiply(axis, quat_multiply(turn, quat_inverse(axis)))
            if parent < 0:
                positions.append(shift)
            else:
                turn = quat_multiply(rotations[parent], turn)
                positions.append(positions[parent] + quat_rotate(turn, shift))
            rotations.append(turn)
        return (torch.stack(positions, dim=1) * body.metres).numpy()


def find_skeleton(path: Path) -> Path:
    """The ASF file beside an AMC file: that of its subject (``01.asf`` of ``01_05.amc``), else the
    only one of the folder. Raises UserError when there is none or it cannot be told."""
    files = [file for file in sorted(path.parent.iterdir()) if file.suffix.lower() == ".asf"]
    named = [file for file in files if f"{path.stem}_".startswith(f"{file.stem}_")]
    if named:
        return max(named, key=lambda file: len(file.stem))
    if len(files) == 1:
        return files[0]
    subject = path.stem.rpartition("_")[0] or path.stem
    raise UserError(f"{path}: no skeleton beside it, looked for {path.parent / subject}.asf")


def read_amc(path: str | Path, frame_rate: float) -> Amc:
    """A motion with the skeleton beside it. Raises UserError as the parsers do."""
    return parse_amc(path, parse_asf(find_skeleton(Path(path))), frame_rate)


def parse_asf(path: str | Path) -> Asf:
    """Raises UserError, naming file and line, when it is not a complete skeleton."""
    try:
        return _parse_skeleton(_read(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def parse_amc(path: str | Path, skeleton: Asf, frame_rate: float) -> Amc:
    """Raises UserError, naming file and line, when a frame is incomplete or of another skeleton."""
    text = _read(path)
    words = {line.strip().lower() for line in text.splitlines()[:50] if line.strip()[:1] == ":"}
    degrees = ":degrees" in words or (":radians" not in words and skeleton.degrees)
    try:
        return Amc(skeleton, 1 / frame_rate, _parse_frames(text, skeleton), degrees)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: str | Path) -> str:
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise UserError(
                f"{path} is larger than {MAX_BYTES >> 20} MB; cut it into shorter takes"
            )
        return Path(path).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


# Skeletons


@dataclass
class _Section:
    """What stands under ``:keyword``; `line` is where that stands."""

    line: int
    lines: list[Line] = field(default_factory=list)

    def value(self, key: str) -> Line:
        """The words after `key`. Raises ValueError when no line starts with it."""
        for number, (first, *rest) in self.lines:
            if first.lower() == key:
                return number, rest
        raise ValueError(f"line {self.line}: the section has no {key!r}")


def _parse_skeleton(text: str) -> Asf:
    sections = _sections(text)
    for name in ("units", "root", "bonedata", "hierarchy"):
        if name not in sections:
            raise ValueError(f"line {len(text.splitlines())}: the file ends without :{name}")
    degrees = _is_degrees(*sections["units"].value("angle"))
    bones = {ROOT: _root(sections["root"], degrees)}
    for section in _bone_sections(sections["bonedata"]):
        name, bone = _bone(section, degrees)
        if name in bones:
            raise ValueError(f"line {section.line}: a second bone is named {name}")
        bones[name] = bone
    parents = _parents(sections["hierarchy"], bones)
    order = list(parents)
    return Asf(
        bone_names=tuple(order),
        parents=tuple(order.index(parent) if parent else -1 for parent in parents.values()),
        offsets=np.array([bones[name].offset for name in order]),
        axes=torch.stack([bones[name].axis for name in order]).numpy(),
        dofs=tuple(bones[name].dofs for name in order),
        metres=INCH / _positive(*sections["units"].value("length")),
        degrees=degrees,
    )


def _sections(text: str) -> dict[str, _Section]:
    """Sections by their lower-case keyword; commas and brackets count as spaces."""
    found: dict[str, _Section] = {}
    current = _Section(0)
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].translate(str.maketrans("(),", "   ")).split()
        if words and words[0].startswith(":"):
            current = found[words[0][1:].lower()] = _Section(number)
        elif words:
            current.lines.append((number, words))
    return found


def _bone_sections(section: _Section) -> Iterator[_Section]:
    bone = None
    for number, words in section.lines:
        if words[0].lower() == "begin":
            bone = _Section(number)
        elif bone is None:
            raise ValueError(f"line {number}: {words[0]!r} stands outside of begin and end")
        elif words[0].lower() == "end":
            yield bone
            bone = None
        else:
            bone.lines.append((number, words))
    if bone is not None:
        raise ValueError(f"line {bone.line}: the bone that begins here has no end")


@dataclass(frozen=True)
class _Bone:
    offset: list[float]
    axis: Tensor
    dofs: tuple[str, ...]


def _root(section: _Section, degrees: bool) -> _Bone:
    number, order = section.value("order")
    dofs = tuple(word.lower() for word in order)
    if sorted(dofs) != sorted(TURNS + MOVES):
        raise ValueError(f"line {number}: order must name TX TY TZ RX RY RZ once, in any order")
    position = _numbers(*section.value("position"))
    number, words = section.value("orientation")
    if any(_numbers(number, words)):
        # Programs disagree on whether it comes before or after the turns of a frame.
        raise ValueError(f"line {number}: a root with an orientation of its own is not supported")
    return _Bone(position, _turn("xyz", [0.0] * 3, degrees), dofs)


def _bone(section: _Section, degrees: bool) -> tuple[str, _Bone]:
    name = " ".join(section.value("name")[1])
    direction = np.array(_numbers(*section.value("direction")))
    length = _number(*section.value("length"))
    if length and not abs(np.linalg.norm(direction) - 1) < 1e-3:
        raise ValueError(f"line {section.value('direction')[0]}: the direction has not length 1")
    number, words = section.value("axis")
    order = "".join(words[3:]).lower()
    if sorted(order) != ["x", "y", "z"]:
        raise ValueError(f"line {number}: axis needs three angles and their order, such as XYZ")
    has_dofs = any(words[0].lower() == "dof" for _, words in section.lines)
    return name, _Bone(
        (direction * length).tolist(),
        _turn(order, _numbers(number, words[:3]), degrees),
        _dofs(*section.value("dof")) if has_dofs else (),
    )


def _dofs(number: int, words: list[str]) -> tuple[str, ...]:
    dofs = tuple(word.lower() for word in words)
    if not set(dofs) <= set(TURNS) or len(set(dofs)) < len(dofs):
        raise ValueError(f"line {number}: dof must name rx, ry and rz at most once each")
    return dofs


def _turn(order: str, angles: list[float], degrees: bool) -> Tensor:
    """Quaternion [4] of turns about fixed axes, the first of `order` first."""
    turn = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    radians = torch.tensor(angles, dtype=torch.float64)
    radians = radians.deg2rad() if degrees else radians
    for axis, angle in zip(order, radians, strict=True):
        turn = quat_multiply(quat_about(axis, angle), turn)
    return turn


def _parents(section: _Section, bones: dict[str, _Bone]) -> dict[str, str]:
    """Parent of every bone ("" of the root), a parent before its children."""
    children: dict[str, list[str]] = {}
    placed = {ROOT}
    for number, words in section.lines:
        if words[0].lower() in ("begin", "end"):
            continue
        unknown = [word for word in words if word not in bones]
        if unknown:
            raise ValueError(f"line {number}: the bone {unknown[0]!r} is not in :bonedata")
        twice = [word for word in words[1:] if word in placed]
        if twice:
            raise ValueError(f"line {number}: the bone {twice[0]} has a second parent")
        children.setdefault(words[0], []).extend(words[1:])
        placed |= set(words[1:])
    parents = {ROOT: ""}
    order = [ROOT]
    for parent in order:
        own = children.get(parent, [])
        parents |= dict.fromkeys(own, parent)
        order += own
    loose = [name for name in bones if name not in parents]
    if loose:
        raise ValueError(f"line {section.line}: the bone {loose[0]} does not hang on the root")
    return parents


def _number(line: int, words: list[str]) -> float:
    (value,) = _numbers(line, words, 1)
    return value


def _positive(line: int, words: list[str]) -> float:
    value = _number(line, words)
    if not value > 0:
        raise ValueError(f"line {line}: {words[0]} is not a positive number")
    return value


def _numbers(line: int, words: list[str], count: int = 3) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(value) <= MAX_DEGREES for value in values):
        needed = "a finite number" if count == 1 else f"{count} finite numbers"
        found = " ".join(words)
        raise ValueError(f"line {line}: expected {needed} up to {MAX_DEGREES:g}, found {found!r}")
    return values


def _is_degrees(line: int, words: list[str]) -> bool:
    unit = "".join(words).lower()
    if unit not in ("deg", "rad"):
        raise ValueError(f"line {line}: the angle unit {unit!r} is neither deg nor rad")
    return unit == "deg"


# Motions


def _parse_frames(text: str, skeleton: Asf) -> np.ndarray:
    """[T, C]; every frame names every bone that has degrees of freedom once, in any order."""
    widths = {n: len(d) for n, d in zip(skeleton.bone_names, skeleton.dofs, strict=True) if d}
    rows: list[list[str]] = []
    frame: dict[str, list[str]] = {}
    number, first = 0, None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0][0] in "#:":
            continue
        if len(words) == 1 and words[0].isdigit():
            if first is None:
                first = int(words[0])
            else:
                rows.append(_row(frame, widths, number))
            if int(words[0]) != first + len(rows):
                raise ValueError(f"line {number}: frame {words[0]} follows {first + len(rows) - 1}")
            frame = {}
            continue
        name, *values = words
        if first is None or len(values) != widths.get(name):
            raise ValueError(f"line {number}: {_misfit(name, values, widths, first)}")
        if name in frame:
            raise ValueError(f"line {number}: {name} stands twice in one frame")
        frame[name] = values
    if first is None:
        raise ValueError(f"line {number}: the file ends without a frame")
    rows.append(_row(frame, widths, number))
    return _as_numbers(rows, text)


def _row(frame: dict[str, list[str]], widths: dict[str, int], line: int) -> list[str]:
    missing = [name for name in widths if name not in frame]
    if missing:
        raise ValueError(f"line {line}: the frame before it has no {missing[0]}")
    return [value for name in widths for value in frame[name]]


def _as_numbers(rows: list[list[str]], text: str) -> np.ndarray:
    """All at once, as line by line takes twice as long; the bad line is searched when there is one.

    Raises ValueError for anything that is not a finite number, or that no recording holds.
    """
    try:
        numbers = np.array([list(map(float, row)) for row in rows])
    except ValueError:
        numbers = np.array(np.nan)
    if not (np.abs(numbers) <= MAX_DEGREES).all():
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if words and words[0][0] not in "#:":
                _numbers(number, words[1:], len(words) - 1)
    return numbers


def _misfit(name: str, values: list[str], widths: dict[str, int], first: int | None) -> str:
    if first is None:
        return "expected the number of the first frame"
    if name not in widths:
        return f"the skeleton has no degree of freedom in {name!r}"
    return f"{name} needs {widths[name]} numbers, found {len(values)}"
