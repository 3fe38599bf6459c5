"""A body of rigid bones for a motion whose bones stretch: its shape, and the nearest poses.

The joints that a network generates keep no bone lengths. Every format for animation does.
"""

import torch
from torch import Tensor

from export.body_plan import BodyPlan
from utils.errors import UserError
from utils.rotations import matrix_to_quat, normalize, quat_inverse, quat_rotate

SHAPE_STEPS = 5  # of the alternation between a shape and its rotations
SWEEPS = 5  # over the bones; more than 5 change the error by less than 2 %
SHORTEST_BONE = 1e-4  # metres


def check_joints(joints: Tensor, plan: BodyPlan) -> None:
    """Raises UserError for NaN or infinity, and for a joint that lies on its parent."""
    broken = (~joints.isfinite()).flatten(1).any(dim=1)
    if broken.any():
        raise UserError(f"frame {int(broken.nonzero()[0])} holds NaN or infinity")
    lengths = bones(joints, plan).norm(dim=-1)[:, 1:]
    if lengths.min() < SHORTEST_BONE:
        frame, bone = divmod(int(lengths.argmin()), lengths.shape[1])
        name = plan.skeleton.joint_names[bone + 1]
        raise UserError(f"frame {frame}: {name} lies on its parent, so the bone has no direction")


def bones(joints: Tensor, plan: BodyPlan) -> Tensor:
    """Each joint from its parent ``[T, J, 3]``; zero for the root."""
    parents = [max(parent, 0) for parent in plan.skeleton.parents]
    return joints - joints[:, parents]


def rest_offsets(joints: Tensor, plan: BodyPlan) -> Tensor:
    """Bones ``[J, 3]`` in the T-pose whose lengths are the means over the frames.

    Bones that start at one joint keep the angles between them that they have on average.
    """
    vectors = bones(joints, plan)
    offsets = plan.directions() * vectors.norm(dim=-1).mean(dim=0)[:, None]
    for joint in plan.branches:
        children = plan.children(joint)
        offsets[children] = _mean_shape(vectors[:, children], offsets[children])
    return offsets


def _mean_shape(vectors: Tensor, start: Tensor) -> Tensor:
    """The rigid shape ``[K, 3]`` nearest to ``[T, K, 3]``, turned like `start` (Gower 1975)."""
    shape = start
    for _ in range(SHAPE_STEPS):
        back = quat_inverse(kabsch(shape, vectors))
        shape = quat_rotate(back[:, None], vectors).mean(dim=0)
    return quat_rotate(kabsch(shape, start[None]), shape)


def kabsch(rest: Tensor, vectors: Tensor) -> Tensor:
    """Rotations ``[T, 4]`` that bring ``[K, 3]`` nearest to ``[T, K, 3]`` in the least squares."""
    u, _, v = torch.linalg.svd(vectors.transpose(-1, -2) @ rest)
    sign = torch.ones_like(u[..., 0])
    sign[..., 2] = torch.linalg.det(u @ v)
    return matrix_to_quat((u * sign[..., None, :]) @ v)


def nearest_rigid(joints: Tensor, plan: BodyPlan, offsets: Tensor) -> Tensor:
    """Joints ``[T, J, 3]`` near the given ones with exactly the bones of `offsets` ``[J, 3]``.

    Sweeps over the body move both ends of a bone by half of what it is too long (position-based
    dynamics, Mueller et al. 2007), and the joints around a branch as one rigid piece. Without them
    the error of every bone would be passed on to the end of the limb. A last walk from the root
    outwards leaves no rest.
    """
    joints = joints.clone()
    for _ in range(SWEEPS):
        for joint in range(plan.skeleton.num_joints):
            children = plan.children(joint)
            if joint in plan.branches:
                piece = [joint, *children]
                joints[:, piece] = _nearest_piece(joints[:, piece], offsets[children])
            elif children:
                bone = joints[:, children[0]] - joints[:, joint]
                excess = 1 - offsets[children[0]].norm() / bone.norm(dim=-1, keepdim=True)
                joints[:, joint] += bone * excess / 2
                joints[:, children[0]] -= bone * excess / 2
    for joint in range(plan.skeleton.num_joints):
        children = plan.children(joint)
        fan = joints[:, children] - joints[:, [joint]]
        if joint in plan.branches:
            fan = quat_rotate(kabsch(offsets[children], fan)[:, None], offsets[children])
        elif children:
            fan = normalize(fan) * offsets[children[0]].norm()
        joints[:, children] = joints[:, [joint]] + fan
    return joints


def _nearest_piece(joints: Tensor, offsets: Tensor) -> Tensor:
    """A joint and its children ``[T, 1 + K, 3]`` as the rigid piece of ``[K, 3]`` that fits."""
    shape = torch.cat([torch.zeros_like(offsets[:1]), offsets])
    shape = shape - shape.mean(dim=0)
    centre = joints.mean(dim=1, keepdim=True)
    return centre + quat_rotate(kabsch(shape, joints - centre)[:, None], shape)
