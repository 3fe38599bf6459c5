"""Trials of the CMU motion capture database as joints at 20 fps, from ASF/AMC or BVH copies."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_loaders.asf_amc import Amc
from data_loaders.bvh import Bvh
from data_loaders.skeleton import HUMANML
from prepare.bvh.clip import detect_unit, read_motion
from prepare.bvh.cmu_rates import trial_name
from prepare.bvh.joint_maps import CMU_DAZ, choose_joint_map
from utils.errors import UserError

FORMATS = (".amc", ".bvh")  # where there are both, the first: BVH copies have bodies of their own
EASED_FRAMES = 8


@dataclass(frozen=True)
class Trial:
    """joints: [T, 22, 3] at 20 fps, metres, Y up. native_frames: as recorded."""

    joints: np.ndarray
    native_frames: int


def find_trials(root: Path) -> dict[str, Path]:
    """Trial name -> its file, searched in all subfolders. Raises UserError when there is none."""
    if not root.is_dir():
        raise UserError(
            f"--mocap {root} is not a folder; bring it with: bash prepare/download_cmu.sh"
        )
    found: dict[str, Path] = {}
    for suffix in reversed(FORMATS):
        for path in sorted(root.rglob("*")):
            name = trial_name(path.stem)
            if name and path.suffix.lower() == suffix:
                found[name] = path
    if not found:
        raise UserError(f"--mocap {root} holds no trial such as 07_01.amc or 07_01.bvh")
    return found


def load_trial(path: Path, native_fps: int) -> Trial:
    """Every (native_fps / 20)th pose from the first; the frame time of a BVH copy is not read.

    Raises UserError for a damaged file or unknown joints.
    """
    motion = read_motion(path, str(native_fps))
    if isinstance(motion, Bvh):
        motion = without_t_pose(motion)
    kept = replace(motion, motion=motion.motion[:: round(native_fps / HUMANML.fps)])
    try:
        joint_map = choose_joint_map(motion.joint_names)
        joints = joint_map.apply(kept.global_positions(), motion.joint_names)
        metres = 1.0 if isinstance(motion, Amc) else detect_unit(joints)
        return Trial(joints * metres, len(motion.motion))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def without_t_pose(bvh: Bvh) -> Bvh:
    """Without the rest pose that conversions put before the first frame.

    It is told by the root's angles: all exactly zero, which no recorded pose is. The daz-friendly
    conversion also eases out of it: limbs of the first frames are a mixture, by tens of centimetres
    and partly below the floor, so they are held as in the first frame after that.
    """
    root = len(bvh.channels[0])
    turns = [i for i, name in enumerate(bvh.channels[0]) if name.endswith("rotation")]
    if len(bvh.motion) < 2 or bvh.motion[0, turns].any() or not bvh.motion[1, turns].any():
        return bvh
    motion = bvh.motion[1:].copy()
    if not CMU_DAZ.missing(bvh.joint_names):
        motion[:EASED_FRAMES, root:] = motion[min(EASED_FRAMES, len(motion) - 1), root:]
    return replace(bvh, motion=motion)
