"""Is a motion one that a person can make? The bounds lie far beyond what people do.

In recorded dances, jumps and sprints (CMU, Bandai-Namco) no joint is faster than 15 m/s, no root
higher than 1.5 m above the floor, and no joint further than 1 m beside the root.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from data_loaders.features import feature_slices
from data_loaders.skeleton import Skeleton
from utils.errors import UserError


class ImplausibleMotion(UserError):
    """A motion with values that no person reaches."""


@dataclass(frozen=True)
class Bound:
    """values: ``[T]`` in `unit`, none of which may exceed `limit`."""

    what: str
    values: Tensor
    limit: float
    unit: str


def check_plausible(features: Tensor, skeleton: Skeleton) -> None:
    """Raises ImplausibleMotion for un-normalised features ``[T, D]`` that are not finite or beyond
    the bounds, and says when: at the first such frame.
    """
    columns, metre = feature_slices(skeleton), skeleton.units_per_metre
    height = features[:, columns.root_height].squeeze(1)
    joints = features[:, columns.positions].unflatten(1, (-1, 3))
    beside = joints[..., [0, 2]].norm(dim=-1).amax(dim=1)
    steps = features[:, columns.velocities].unflatten(1, (-1, 3))
    speed = steps.norm(dim=-1).amax(dim=1) * skeleton.fps
    largest = torch.finfo(features.dtype).max
    for bound in (
        Bound("a feature is", features.abs().amax(dim=1), largest, ""),
        Bound("the root's height is", height.abs() / metre, 10.0, "m"),
        Bound("a joint is beside the root by", beside / metre, 3.0, "m"),
        Bound("a joint moves at", speed / metre, 60.0, "m/s"),
    ):
        beyond = ~(bound.values <= bound.limit)  # NaN is beyond, too
        if beyond.any():
            frame = int(beyond.int().argmax())
            raise ImplausibleMotion(
                f"at {frame / skeleton.fps:.2f} s {bound.what} {bound.values[frame]:.4g} "
                f"{bound.unit}; no person goes beyond {bound.limit:.4g} {bound.unit}"
            )
