"""A motion as other tools want it: a body of rigid bones, a rotation for every joint and frame."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from export.body_plan import BodyPlan
from utils.rotations import quat_multiply, quat_rotate, quat_slerp


@dataclass(frozen=True)
class RiggedMotion:
    """offsets ``[J, 3]``: each joint from its parent in the T-pose, in metres, Y up, facing +Z.

    rotations ``[T, J, 4]``: of each joint relative to its parent, quaternions (w, x, y, z); they
    turn the bones that start there. root ``[T, 3]``: place of joint 0. Frame k is at k / fps
    seconds.
    """

    plan: BodyPlan
    offsets: Tensor
    rotations: Tensor
    root: Tensor
    fps: float

    def __len__(self) -> int:
        return len(self.root)

    @cached_property
    def global_rotations(self) -> Tensor:
        """Rotations ``[T, J, 4]`` relative to the world."""
        turns = [self.rotations[:, 0]]
        for joint, parent in enumerate(self.plan.skeleton.parents[1:], start=1):
            turns.append(quat_multiply(turns[parent], self.rotations[:, joint]))
        return torch.stack(turns, dim=1)

    @cached_property
    def joints(self) -> Tensor:
        """Forward kinematics: positions ``[T, J, 3]``."""
        places = [self.root]
        for joint, parent in enumerate(self.plan.skeleton.parents[1:], start=1):
            bone = quat_rotate(self.global_rotations[:, parent], self.offsets[joint])
            places.append(places[parent] + bone)
        return torch.stack(places, dim=1)

    def t_pose(self) -> Tensor:
        """Joints ``[J, 3]`` of the body at rest, its root at the origin."""
        places = [torch.zeros_like(self.offsets[0])]
        for joint, parent in enumerate(self.plan.skeleton.parents[1:], start=1):
            places.append(places[parent] + self.offsets[joint])
        return torch.stack(places)

    def resampled(self, fps: float) -> "RiggedMotion":
        """The same motion at another frame rate: rotations by slerp, the root's place linearly.

        It ends with the last frame that lies within the motion.
        """
        if fps == self.fps:
            return self
        last = len(self) - 1
        count = int(last / self.fps * fps + 1e-6) + 1
        place = torch.arange(count, dtype=torch.float64) * self.fps / fps
        before = (place + 1e-6).floor().long().clamp(max=last)
        after = (before + 1).clamp(max=last)
        share = (place - before).clamp(0.0, 1.0).to(self.root)
        rotations = quat_slerp(self.rotations[before], self.rotations[after], share[:, None])
        root = torch.lerp(self.root[before], self.root[after], share[:, None])
        return replace(self, rotations=rotations, root=root, fps=fps)
