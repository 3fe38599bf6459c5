"""NPZ: the motion as arrays, for NumPy and whatever reads it."""

from pathlib import Path

import numpy as np
from torch import Tensor

from export.rig import RiggedMotion
from utils.files import atomic_write


def write_npz(path: Path, motion: RiggedMotion, contacts: Tensor, caption: str) -> None:
    """Metres, Y up; quaternions (w, x, y, z) relative to the parent; the keys of docs/export.md.

    contacts ``[T, 4]``: left ankle, left foot, right ankle, right foot on the floor.
    """
    skeleton = motion.plan.skeleton
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary,
            joints=motion.joints.float().numpy(),
            rotations=motion.rotations.float().numpy(),
            root=motion.root.float().numpy(),
            offsets=motion.offsets.float().numpy(),
            contacts=contacts.numpy(),
            fps=np.float64(motion.fps),
            caption=np.array(caption),
            joint_names=np.array(skeleton.joint_names),
            parents=np.array(skeleton.parents),
        )
