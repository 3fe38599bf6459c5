"""Measures of a motion that need no caption and no network: sliding feet, jerk."""

import numpy as np

from data_loaders.skeleton import Skeleton

FOOT_HEIGHT = 0.05  # metres above the clip's lowest foot position: the foot is down
FOOT_SLIDE = 0.5  # metres per second: a foot that is down and faster than this is skating


def foot_skating(joints: np.ndarray, skeleton: Skeleton) -> float:
    """Share of frames in which a foot that is down slides: joints ``[T, J, 3]`` in metres.

    0 for a single frame.
    """
    feet = joints[:, [skeleton.left_foot[1], skeleton.right_foot[1]]]
    down = feet[:-1, :, 1] < feet[..., 1].min() + FOOT_HEIGHT
    speed = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1) * skeleton.fps
    sliding = (down & (speed > FOOT_SLIDE)).any(axis=1)
    return float(sliding.mean()) if len(sliding) else 0.0


def jerk(joints: np.ndarray, fps: float) -> float:
    """Mean size of the third derivative of the positions ``[T, J, 3]`` in metres: m/s^3.

    0 for fewer than four frames.
    """
    third = np.diff(np.asarray(joints, np.float64), n=3, axis=0) * fps**3
    return float(np.linalg.norm(third, axis=-1).mean()) if len(third) else 0.0
