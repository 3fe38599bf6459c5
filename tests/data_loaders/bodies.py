"""Bodies that stand or move, on the reference skeleton, for tests."""

import math

import torch
from torch import Tensor

from data_loaders.skeleton import HUMANML, Skeleton, forward_kinematics
from utils.rotations import quat_about, quat_multiply

OFFSETS = torch.tensor(HUMANML.target_offsets, dtype=torch.float64)


def upright(
    frames: int, path: Tensor | None = None, yaw: Tensor | None = None, offsets: Tensor = OFFSETS
) -> Tensor:
    """Joints ``[T, 22, 3]`` in the rest pose, arms hanging: at `path` ``[T, 3]``, facing `yaw`.

    The feet are at y = 0 and the left side is at +X unless `path` or `yaw` say otherwise.
    """
    still = torch.zeros(frames, HUMANML.num_joints, dtype=torch.float64)
    return pose(still, still, path, yaw, offsets, HUMANML)


def moving(frames: int, seed: int = 0, offsets: Tensor = OFFSETS) -> Tensor:
    """Joints ``[T, 22, 3]`` of somebody who wanders, turns and swings every bone smoothly."""
    rng = torch.Generator().manual_seed(seed)
    t = torch.arange(frames, dtype=torch.float64)[:, None] / HUMANML.fps

    def waves(size: float) -> Tensor:
        rate, phase = torch.rand(2, HUMANML.num_joints, generator=rng, dtype=torch.float64)
        return size * torch.sin((1 + 2 * rate) * t + 2 * math.pi * phase)

    bend, lean, drift = waves(0.35), waves(0.25), waves(0.5)
    path = torch.stack([drift[:, 0], 0.1 * drift[:, 1], t[:, 0] + drift[:, 2]], dim=1)
    return pose(bend, lean, path, 1.5 * drift[:, 3], offsets, HUMANML)


def pose(
    bend: Tensor,
    lean: Tensor,
    path: Tensor | None,
    yaw: Tensor | None,
    offsets: Tensor,
    skeleton: Skeleton,
) -> Tensor:
    """Every bone is turned by `lean` about z, then by `bend` about x ``[T, J]``, in its chain."""
    rotations = quat_multiply(quat_about("x", bend), quat_about("z", lean))
    if yaw is None:
        yaw = torch.zeros_like(bend[:, 0])
    rotations = torch.cat([quat_about("y", yaw)[:, None], rotations[:, 1:]], dim=1)
    root = torch.zeros(len(bend), 3, dtype=torch.float64) if path is None else path
    root = root - root.new_tensor([0.0, 1.0, 0.0]) * leg_height(offsets, skeleton)
    return forward_kinematics(rotations, root, offsets, skeleton)


def leg_height(offsets: Tensor, skeleton: Skeleton) -> Tensor:
    """Height (negative) of the lower foot below the root of the rest pose."""
    heights = [offsets[list(chain[1:]), 1].sum() for chain in skeleton.chains[:2]]
    return torch.stack(heights).min()


def symmetric_offsets(offsets: Tensor = OFFSETS, skeleton: Skeleton = HUMANML) -> Tensor:
    """The same bones with equal lengths on both sides."""
    swapped = offsets[list(skeleton.mirror)] * offsets.new_tensor([-1.0, 1.0, 1.0])
    return (offsets + swapped) / 2
