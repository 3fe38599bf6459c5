"""One BVH or AMC file as the 22 joints of HumanML3D: joint map, frame rate, units, up axis."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from data_loaders.asf_amc import Amc, read_amc
from data_loaders.bvh import Bvh, parse_bvh
from data_loaders.skeleton import HUMANML
from prepare.bvh.cmu_rates import native_fps, trial_name
from prepare.bvh.joint_maps import JointMap, choose_joint_map
from utils.errors import UserError

# "cmu" is the unit of the CMU database and its cgspeed conversion: 1 / 0.45 inch per unit.
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "cmu": 0.0254 / 0.45}
LEG_LENGTHS = (0.6, 1.15)  # metres, hip to ankle; adults and teenagers
MAX_SECONDS = 3600


def load_clip(
    path: str | Path,
    joint_map: JointMap | None = None,
    fps: float = HUMANML.fps,
    up_axis: str = "auto",
    unit: str = "auto",
    frame_rate: str = "auto",
) -> np.ndarray:
    """Joints [T, 22, 3] of a BVH or AMC file in metres, Y up, at `fps`.

    Place and facing are those of the file. Output frame k is the pose at k / fps seconds, by linear
    interpolation of joint positions.
    joint_map: None chooses a built-in one by joint names. up_axis: "auto", "y" or "z". unit: "auto"
    (from the leg length; ASF files state it), a name in `UNITS`, or the number of metres per unit.
    frame_rate: "auto" (what a BVH file states), "cmu" (of the trial), or frames per second.
    Raises UserError for a damaged file, unknown joints, or when axis or unit cannot be told.
    """
    motion = read_motion(Path(path), frame_rate)
    try:
        joint_map = joint_map or choose_joint_map(motion.joint_names)
        joints = joint_map.apply(motion.global_positions(), motion.joint_names)
        joints = resample(joints, motion.frame_time, fps)
        if not isinstance(motion, Amc):
            joints = joints * (detect_unit(joints) if unit == "auto" else metres_per_unit(unit))
        up_axis = up_axis if up_axis != "auto" else detect_up_axis(joints)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return joints if up_axis == "y" else joints[..., [0, 2, 1]] * [1.0, 1.0, -1.0]


def read_motion(path: Path, frame_rate: str = "auto") -> Bvh | Amc:
    """Raises UserError for a damaged file, and where the frame rate is not known."""
    rate = frames_per_second(frame_rate, path)
    if path.suffix.lower() == ".amc":
        if rate is None:
            raise UserError(f"{path}: an AMC file does not say its frame rate; give --frame_rate")
        return read_amc(path, rate)
    bvh = parse_bvh(path)
    return bvh if rate is None else replace(bvh, frame_time=1 / rate)


def frames_per_second(frame_rate: str, path: Path) -> float | None:
    """The rate that is meant for a file, None for its own. Raises UserError when there is none."""
    if frame_rate == "auto":
        return None
    if frame_rate == "cmu":
        trial = trial_name(path.stem)
        if trial is None:
            raise UserError(f"{path}: no trial of the CMU database is named so; give --frame_rate")
        return native_fps(trial)
    return positive_rate(frame_rate)


def positive_rate(frame_rate: str) -> float:
    """Raises UserError for anything but a positive number."""
    try:
        rate = float(frame_rate)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UserError(
            f"--frame_rate {frame_rate} is unknown; give auto, cmu, or a positive number"
        )
    return rate


def resample(positions: np.ndarray, frame_time: float, fps: float) -> np.ndarray:
    """Positions [F, J, 3], one per `frame_time` seconds -> [T, J, 3] at times 0, 1/fps, ...

    Raises UserError for more than an hour, which `frame_time` can make of a small file.
    """
    last = len(positions) - 1
    if last * frame_time > MAX_SECONDS:
        raise UserError(
            f"{last + 1} frames of {frame_time:g} s last more than an hour; cut the file into "
            "shorter takes, or correct its Frame Time"
        )
    count = int(last * frame_time * fps + 1e-6) + 1
    place = np.arange(count) / (fps * frame_time)
    before = np.minimum(np.floor(place + 1e-6).astype(int), last)
    after = np.minimum(before + 1, last)
    weight = np.clip(place - before, 0.0, 1.0)[:, None, None]
    return (1 - weight) * positions[before] + weight * positions[after]


def _joint(joints: np.ndarray, name: str) -> np.ndarray:
    return joints[:, HUMANML.joint_names.index(name)]


def metres_per_unit(unit: str) -> float:
    """A name in `UNITS` or a positive number. Raises UserError for anything else."""
    try:
        metres = UNITS[unit] if unit in UNITS else float(unit)
    except ValueError:
        metres = 0.0
    if not 0 < metres < float("inf"):
        raise UserError(
            f"--unit {unit} is unknown; give auto, {', '.join(UNITS)}, or the metres of one unit"
        )
    return metres


def detect_unit(joints: np.ndarray) -> float:
    """Metres per unit of joints [T, 22, 3], the one that makes the legs of human length.

    Raises UserError when none does.
    """
    chain = [_joint(joints[:1], f"left_{part}") for part in ("hip", "knee", "ankle")]
    leg = sum(np.linalg.norm(a - b) for a, b in zip(chain, chain[1:], strict=False))
    shortest, longest = LEG_LENGTHS
    for metres in UNITS.values():
        if shortest <= leg * metres <= longest:
            return metres
    raise UserError(f"a leg is {leg:.4g} units long, which fits no known unit; give --unit")


def detect_up_axis(joints: np.ndarray) -> str:
    """ "y" or "z", whichever the body stands along on average over joints [T, 22, 3].

    Raises UserError when it is neither, for example in a clip of somebody lying down.
    """
    ankles = (_joint(joints, "left_ankle") + _joint(joints, "right_ankle")) / 2
    up = (_joint(joints, "neck") - ankles).mean(axis=0)
    axis = "xyz"[np.abs(up).argmax()]
    if axis == "x" or up.max() < np.abs(up).max():
        raise UserError("cannot tell which axis points up; give --up_axis y or z")
    return axis
