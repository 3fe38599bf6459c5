"""Joint positions to the HumanML3D / KIT feature vector and back.

Row t of the features holds: half the turn rate (rad/frame), root velocity x and z (per frame, in
the facing frame), root height, local joint positions (RIC), 6-D rotations, local joint velocities
(per frame), foot contacts. Source: Guo et al. 2022 and their public extraction, whose numerical
habits are kept because published data and checkpoints carry them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_loaders.skeleton import (
    HUMANML,
    Skeleton,
    bone_offsets,
    facing_direction,
    forward_kinematics,
    inverse_kinematics,
)
from utils.rotations import (
    matrix_to_sixd,
    quat_between,
    quat_inverse,
    quat_multiply,
    quat_rotate,
    quat_to_matrix,
    sixd_to_matrix,
)


@dataclass(frozen=True)
class FeatureSlices:
    """Columns of the feature vector of one skeleton."""

    root_angular: slice
    root_velocity: slice
    root_height: slice
    positions: slice
    rotations: slice
    velocities: slice
    contacts: slice


def feature_slices(skeleton: Skeleton) -> FeatureSlices:
    joints = skeleton.num_joints
    widths = (1, 2, 1, 3 * (joints - 1), 6 * (joints - 1), 3 * joints, 4)
    ends = np.cumsum(widths).tolist()
    starts = [0, *ends[:-1]]
    return FeatureSlices(*(slice(a, b) for a, b in zip(starts, ends, strict=True)))


@dataclass(frozen=True)
class ProcessedMotion:
    """features ``[T-1, D]`` float32; global_positions and ric_positions ``[T, J, 3]``;
    root_velocity ``[T-1, 2]``."""

    features: Tensor
    global_positions: Tensor
    ric_positions: Tensor
    root_velocity: Tensor


def retarget(joints: Tensor, skeleton: Skeleton, target_offsets: Tensor | None = None) -> Tensor:
    """Move a motion ``[T, J, 3]`` onto the reference body: its bone lengths, the source's poses.

    The root path is scaled by the ratio of leg lengths. Raises ValueError when the skeleton has no
    reference body and none is given.
    """
    if target_offsets is None:
        if skeleton.target_offsets is None:
            raise ValueError(f"the {skeleton.name} skeleton has no public reference body")
        target_offsets = joints.new_tensor(skeleton.target_offsets)
    target_offsets = target_offsets.to(joints)
    source_offsets = bone_offsets(joints[0], skeleton)
    legs = list(skeleton.leg_joints)
    target_leg = target_offsets[legs].abs().amax(dim=1).sum()
    scale = target_leg / source_offsets[legs].abs().amax(dim=1).sum()
    rotations = inverse_kinematics(joints, skeleton, smooth_facing=False)
    return forward_kinematics(rotations, joints[:, 0] * scale, target_offsets, skeleton)


def process_joints(
    joints: Tensor | np.ndarray,
    skeleton: Skeleton = HUMANML,
    target_offsets: Tensor | None = None,
) -> ProcessedMotion:
    """Features of a motion ``[T, J, 3]`` (T >= 2) in any place and facing.

    Retargets, puts the lowest joint on the floor, the first root at x = z = 0 and the first facing
    to +Z. Raises ValueError for a wrong shape, fewer than 2 frames, or non-finite values.
    """
    joints = torch.as_tensor(joints, dtype=torch.float64)
    if joints.dim() != 3 or joints.shape[1:] != (skeleton.num_joints, 3):
        shape = tuple(joints.shape)
        raise ValueError(f"joints have shape {shape}, expected [T, {skeleton.num_joints}, 3]")
    if len(joints) < 2:
        raise ValueError(f"{len(joints)} frames are too few; features need at least 2")
    if not torch.isfinite(joints).all():
        raise ValueError("joints hold NaN or infinite values")
    positions = _place(retarget(joints, skeleton, target_offsets), skeleton)
    rotations = inverse_kinematics(positions, skeleton, smooth_facing=True)
    root = rotations[:, 0]
    steps = positions[1:] - positions[:-1]

    root_velocity = quat_rotate(root[1:], steps[:, 0])[:, [0, 2]]
    turn = quat_multiply(root[1:], quat_inverse(root[:-1]))
    centred = positions - positions[:, :1] * positions.new_tensor([1.0, 0.0, 1.0])
    local = quat_rotate(root[:, None], centred)
    sixd = matrix_to_sixd(quat_to_matrix(rotations[:, 1:]))
    velocities = quat_rotate(root[:-1, None], steps)
    feet = [*skeleton.left_foot, *skeleton.right_foot]
    contacts = steps[:, feet].square().sum(-1) < skeleton.foot_threshold
    features = torch.cat(
        [
            turn[:, 2:3].asin(),
            root_velocity,
            positions[:-1, 0, 1:2],
            local[:-1, 1:].flatten(1),
            sixd[:-1].flatten(1),
            velocities.flatten(1),
            contacts.to(positions),
        ],
        dim=1,
    )
    if not torch.isfinite(features).all():
        raise ValueError("features hold NaN: a bone has no length or points exactly backwards")
    return ProcessedMotion(
        features.float(), positions.float(), local.float(), root_velocity.float()
    )


def _place(positions: Tensor, skeleton: Skeleton) -> Tensor:
    """Floor at y = 0, first root over the origin, first frame facing +Z."""
    positions = positions - positions.new_tensor([0.0, 1.0, 0.0]) * positions[..., 1].min()
    positions = positions - positions[0, 0] * positions.new_tensor([1.0, 0.0, 1.0])
    facing = facing_direction(positions[0], skeleton)
    return quat_rotate(quat_between(facing, facing.new_tensor([0.0, 0.0, 1.0])), positions)


def mirror_joints(joints: Tensor, skeleton: Skeleton = HUMANML) -> Tensor:
    """Left-right mirror image ``[..., J, 3]``: negate x and swap the sides' joints."""
    return joints[..., list(skeleton.mirror), :] * joints.new_tensor([-1.0, 1.0, 1.0])


def root_trajectory(features: Tensor) -> tuple[Tensor, Tensor]:
    """Root rotation ``[..., T, 4]`` and position ``[..., T, 3]`` by integrating the velocities."""
    angle = features[..., 0].cumsum(-1)
    angle = torch.cat([torch.zeros_like(angle[..., :1]), angle[..., :-1]], dim=-1)
    zero = torch.zeros_like(angle)
    rotation = torch.stack([angle.cos(), zero, angle.sin(), zero], dim=-1)
    velocity = torch.stack([features[..., 1], zero, features[..., 2]], dim=-1)
    velocity = torch.cat([torch.zeros_like(velocity[..., :1, :]), velocity[..., :-1, :]], dim=-2)
    position = quat_rotate(quat_inverse(rotation), velocity).cumsum(-2)
    position = torch.stack([position[..., 0], features[..., 3], position[..., 2]], dim=-1)
    return rotation, position


def features_to_joints(features: Tensor, skeleton: Skeleton = HUMANML) -> Tensor:
    """Joints ``[..., T, J, 3]`` from un-normalised features ``[..., T, D]`` by their positions."""
    rotation, root = root_trajectory(features)
    local = features[..., feature_slices(skeleton).positions]
    local = local.unflatten(-1, (skeleton.num_joints - 1, 3))
    joints = quat_rotate(quat_inverse(rotation).unsqueeze(-2), local)
    ground = root * root.new_tensor([1.0, 0.0, 1.0])
    return torch.cat([root.unsqueeze(-2), joints + ground.unsqueeze(-2)], dim=-2)


def features_to_joints_by_rotation(
    features: Tensor, skeleton: Skeleton = HUMANML, target_offsets: Tensor | None = None
) -> Tensor:
    """Joints ``[..., T, J, 3]`` from un-normalised features ``[..., T, D]`` by their rotations.

    Raises ValueError when the skeleton has no reference body and none is given.
    """
    if target_offsets is None:
        if skeleton.target_offsets is None:
            raise ValueError(f"the {skeleton.name} skeleton has no public reference body")
        target_offsets = features.new_tensor(skeleton.target_offsets)
    rotation, root = root_trajectory(features)
    sixd = features[..., feature_slices(skeleton).rotations]
    local = sixd_to_matrix(sixd.unflatten(-1, (skeleton.num_joints - 1, 6)))
    facing = quat_to_matrix(rotation)
    joints = [root] * skeleton.num_joints
    for chain in skeleton.chains:
        swing = facing
        for parent, child in zip(chain, chain[1:], strict=False):
            swing = swing @ local[..., child - 1, :, :]
            joints[child] = joints[parent] + swing @ target_offsets[child].to(swing)
    return torch.stack(joints, dim=-2)
