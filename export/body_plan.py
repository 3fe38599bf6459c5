"""What positions alone do not say of a body: its T-pose, its hinges, how thick its limbs are."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from data_loaders.skeleton import HUMANML, KIT, NX, NY, Skeleton, X, Y

Direction = tuple[float, float, float]


@dataclass(frozen=True)
class Hinge:
    """A knee or an elbow: it bends about one axis of the limb above it (right-handed, T-pose)."""

    joint: int
    axis: Direction


@dataclass(frozen=True)
class Tip:
    """What is beyond a last joint: head, hand, toes. Metres, in the T-pose."""

    offset: Direction
    radius: float


@dataclass(frozen=True)
class BodyPlan:
    """arms_and_head: T-pose directions where they differ from the skeleton's `raw_offsets`.

    spine: joints between pelvis (0) and `chest`, which share the twist between the two evenly.
    radii: thickness in metres of the bone that ends at each joint.
    """

    skeleton: Skeleton
    arms_and_head: dict[int, Direction]
    hinges: tuple[Hinge, ...]
    spine: tuple[int, ...]
    chest: int
    tips: dict[int, Tip]
    radii: tuple[float, ...]

    def directions(self) -> Tensor:
        """Unit T-pose direction ``[J, 3]`` of the bone that ends at each joint, float64."""
        rows = [self.arms_and_head.get(j, o) for j, o in enumerate(self.skeleton.raw_offsets)]
        return torch.tensor(rows, dtype=torch.float64)

    def children(self, joint: int) -> list[int]:
        return [child for child, parent in enumerate(self.skeleton.parents) if parent == joint]

    @cached_property
    def branches(self) -> tuple[int, ...]:
        """Joints at which several bones start: pelvis and chest."""
        joints = range(self.skeleton.num_joints)
        return tuple(joint for joint in joints if len(self.children(joint)) > 1)


HEAD, TOES = Tip((0.0, 0.12, 0.0), 0.09), Tip((0.0, 0.0, 0.05), 0.035)
LEFT_HAND, RIGHT_HAND = Tip((0.1, 0.0, 0.0), 0.032), Tip((-0.1, 0.0, 0.0), 0.032)

# Knees turn the shin from down to backward, elbows the forearm from sideways to forward.
HUMANML_PLAN = BodyPlan(
    HUMANML,
    arms_and_head={15: Y, 16: X, 18: X, 20: X, 17: NX, 19: NX, 21: NX},
    hinges=(Hinge(4, X), Hinge(5, X), Hinge(18, NY), Hinge(19, Y)),
    spine=(3, 6),
    chest=9,
    tips={15: HEAD, 20: LEFT_HAND, 21: RIGHT_HAND, 10: TOES, 11: TOES},
    radii=(
        *(0.0, 0.09, 0.09, 0.105, 0.072, 0.072, 0.105, 0.05, 0.05, 0.11, 0.04),
        *(0.04, 0.05, 0.06, 0.06, 0.05, 0.055, 0.055, 0.045, 0.045, 0.036, 0.036),
    ),
)
KIT_PLAN = BodyPlan(
    KIT,
    arms_and_head={6: X, 7: X, 9: NX, 10: NX},
    hinges=(Hinge(12, X), Hinge(17, X), Hinge(6, NY), Hinge(9, Y)),
    spine=(1, 2),
    chest=3,
    tips={4: HEAD, 7: LEFT_HAND, 10: RIGHT_HAND, 15: TOES, 20: TOES},
    radii=(
        *(0.0, 0.105, 0.105, 0.11, 0.05, 0.055, 0.045, 0.036, 0.055, 0.045, 0.036),
        *(0.09, 0.072, 0.05, 0.04, 0.04, 0.09, 0.072, 0.05, 0.04, 0.04),
    ),
)
PLANS = {plan.skeleton.name: plan for plan in (HUMANML_PLAN, KIT_PLAN)}
