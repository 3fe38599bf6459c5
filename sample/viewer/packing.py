"""Motions as bytes for the page: 16-bit integers with a scale, and a bit per planted foot.

A motion that stays within 4 m of its origin is stored to 0.06 mm; 16-bit floats would be off by a
millimetre and more at its far end, for as many bytes.
"""

import base64
from collections.abc import Sequence

import numpy as np

from data_loaders.skeleton import Skeleton

LARGEST = 32767
PLANTED_HEIGHT = 0.06  # metres above the lowest place of ankle or toe


def quantize(joints: np.ndarray) -> tuple[np.ndarray, float]:
    """Integers ``[T, J, 3]`` and the metres that one of them stands for."""
    scale = float(np.abs(joints).max()) / LARGEST or 1.0
    return np.round(joints / scale).astype("<i2"), scale


def planted_feet(joints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Planted feet ``[T]`` of joints ``[T, J, 3]`` in metres: bit 0 is the left, bit 1 the right.

    A foot is planted where its ankle or its toe is slower than the threshold of the features and
    no higher than `PLANTED_HEIGHT` above the lowest place that this joint of either foot reaches.
    """
    feet = np.array([skeleton.left_foot, skeleton.right_foot])  # [side, (ankle, toe)]
    places = joints[:, feet]
    steps = np.diff(places * skeleton.units_per_metre, axis=0, append=np.nan)
    slow = np.square(steps).sum(-1) < skeleton.foot_threshold
    slow[-1:] = slow[-2:-1] if len(slow) > 1 else True  # the last frame has no step of its own
    low = places[..., 1] < places[..., 1].min(axis=(0, 1)) + PLANTED_HEIGHT
    planted = (slow & low).any(axis=2)
    return (planted @ [1, 2]).astype(np.uint8)


def pack(integers: Sequence[np.ndarray], contacts: Sequence[np.ndarray]) -> str:
    """The joints of all motions, then their contacts, as base64."""
    parts = [part.tobytes() for part in (*integers, *contacts)]
    return base64.b64encode(b"".join(parts)).decode("ascii")
