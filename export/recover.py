"""Rotations from joint positions, with a twist where positions leave it open.

A joint with several bones (pelvis, chest) is turned as they are. A joint with one bone is turned
so that the bone points to the next joint; what is left is the twist about the bone. In a thigh or
an upper arm it puts knee or elbow on its hinge, as far as it is bent; in the spine it is shared
out between pelvis and chest; elsewhere there is none.
"""

import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from export.body_plan import BodyPlan
from export.rig import RiggedMotion
from export.rigid import bones, check_joints, kabsch, nearest_rigid, rest_offsets
from utils.rotations import (
    normalize,
    quat_between,
    quat_inverse,
    quat_multiply,
    quat_rotate,
    quat_slerp,
)

HINGE_SMOOTHING = 0.1  # seconds
STRAIGHT = 0.2  # sine of the bend below which a hinge says little about the twist


def rig_motion(
    joints: Tensor, plan: BodyPlan, fps: float, offsets: Tensor | None = None
) -> RiggedMotion:
    """Joints ``[T, J, 3]`` in metres as rotations of a body of rigid bones.

    offsets ``[J, 3]``: the body's bones in the T-pose; None = those that fit this motion best.
    Raises UserError for NaN and for a joint that lies on its parent.
    """
    joints = joints.double()
    check_joints(joints, plan)
    offsets = rest_offsets(joints, plan) if offsets is None else offsets.double()
    joints = nearest_rigid(joints, plan, offsets)
    turns = global_rotations(joints, plan, offsets, fps)
    parents = list(plan.skeleton.parents[1:])
    local = quat_multiply(quat_inverse(turns[:, parents]), turns[:, 1:])
    local = torch.cat([turns[:, :1], local], dim=1)
    return RiggedMotion(plan, offsets, without_flips(local), joints[:, 0], fps)


def global_rotations(joints: Tensor, plan: BodyPlan, offsets: Tensor, fps: float) -> Tensor:
    """World rotations ``[T, J, 4]`` of rigid poses ``[T, J, 3]``."""
    vectors = bones(joints, plan)
    turns: dict[int, Tensor] = {}
    for joint in plan.branches:
        children = plan.children(joint)
        turns[joint] = kabsch(offsets[children], vectors[:, children])
    hinges = {plan.skeleton.parents[hinge.joint]: hinge for hinge in plan.hinges}
    for joint, parent in enumerate(plan.skeleton.parents):
        children = plan.children(joint)
        if joint in turns:
            continue
        before = turns[parent]
        if joint in plan.spine:
            share = (plan.spine.index(joint) + 1) / (len(plan.spine) + 1)
            before = quat_slerp(turns[0], turns[plan.chest], share)
        turns[joint] = before
        if children:
            (child,) = children
            turns[joint] = aim(before, offsets[child], vectors[:, child])
        if joint in hinges:
            (end,) = plan.children(child)
            axis = offsets.new_tensor(hinges[joint].axis)
            twist = hinge_twist(turns[joint], offsets[child], axis, vectors[:, end], fps)
            turns[joint] = quat_multiply(turns[joint], twist)
    return torch.stack([turns[joint] for joint in range(plan.skeleton.num_joints)], dim=1)


def aim(turn: Tensor, rest: Tensor, target: Tensor) -> Tensor:
    """`turn` ``[T, 4]``, and then the shortest rotation that makes `rest` ``[3]`` point along
    `target` ``[T, 3]``; a half turn where it points the other way."""
    pointing = normalize(quat_rotate(turn, rest))
    target = normalize(target)
    opposite = (pointing * target).sum(-1, keepdim=True) < -1 + 1e-12
    smallest = torch.eye(3).to(rest)[pointing.abs().argmin(dim=-1)]
    across = normalize(torch.linalg.cross(pointing, smallest, dim=-1))
    half_turn = torch.cat([torch.zeros_like(across[:, :1]), across], dim=-1)
    shortest = torch.where(opposite, half_turn, quat_between(pointing, target))
    return quat_multiply(shortest, turn)


def hinge_twist(turn: Tensor, rest: Tensor, axis: Tensor, beyond: Tensor, fps: float) -> Tensor:
    """Rotation ``[T, 4]`` about the limb `rest` ``[3]`` that lays its hinge across the bend.

    turn ``[T, 4]``: of the limb without twist; beyond ``[T, 3]``: the bone after the hinge. The
    bend is a vector across the limb, as long as the sine of the bend, and smoothed over time; the
    straighter the limb, the nearer is the twist to none.
    """
    along = normalize(rest)
    ahead = normalize(torch.linalg.cross(axis, along, dim=-1))  # where the hinge bends to
    aside = torch.linalg.cross(along, ahead, dim=-1)
    bend = normalize(quat_rotate(quat_inverse(turn), beyond)) @ torch.stack([ahead, aside], dim=-1)
    smooth = gaussian_filter1d(bend.numpy(), HINGE_SMOOTHING * fps, axis=0, mode="nearest")
    half = torch.from_numpy(smooth) + torch.tensor([STRAIGHT, 0.0])
    half = torch.atan2(half[:, 1:], half[:, :1]) / 2
    return torch.cat([half.cos(), half.sin() * along], dim=-1)


def without_flips(rotations: Tensor) -> Tensor:
    """The same rotations ``[T, J, 4]``, of q and -q the one nearer to the frame before."""
    agree = (rotations[1:] * rotations[:-1]).sum(-1) >= 0
    signs = torch.where(agree, 1.0, -1.0).to(rotations).cumprod(dim=0)
    return torch.cat([rotations[:1], rotations[1:] * signs[..., None]])
