"""The two skeletons of the field, their constants, and forward and inverse kinematics.

The constants are those of the public HumanML3D feature extraction. Units are metres (KIT: about
millimetres), Y is up, a body at rest faces +Z and has its left side at +X.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from utils.rotations import normalize, quat_between, quat_inverse, quat_multiply, quat_rotate

FACING_SMOOTHING = 20.0  # frames; sigma of the Gaussian over the facing direction


@dataclass(frozen=True)
class Skeleton:
    """Joint tree and the constants that the feature extraction needs.

    raw_offsets: unit rest direction of the bone ending at each joint. target_offsets: bones of the
    reference body ``[J, 3]``, or None where it is not public. face_joints: right hip, left hip,
    right shoulder, left shoulder. foot_threshold: squared displacement per frame below which a
    foot counts as planted. mirror: for each joint the joint on the other side.
    """

    name: str
    joint_names: tuple[str, ...]
    chains: tuple[tuple[int, ...], ...]
    raw_offsets: tuple[tuple[float, float, float], ...]
    face_joints: tuple[int, int, int, int]
    left_foot: tuple[int, int]
    right_foot: tuple[int, int]
    leg_joints: tuple[int, int]
    foot_threshold: float
    fps: float
    min_length: int
    mirror: tuple[int, ...]
    target_offsets: tuple[tuple[float, float, float], ...] | None = None
    max_length: int = 196
    units_per_metre: float = 1.0

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def feature_dim(self) -> int:
        """4 root values, 3 + 6 per other joint, 3 velocities per joint, 4 contacts."""
        return 4 + 9 * (self.num_joints - 1) + 3 * self.num_joints + 4

    @cached_property
    def parents(self) -> tuple[int, ...]:
        found = [-1] * self.num_joints
        for chain in self.chains:
            for parent, child in zip(chain, chain[1:], strict=False):
                found[child] = parent
        return tuple(found)

    @cached_property
    def previous_in_chain(self) -> tuple[int, ...]:
        """The joint whose rotation a bone's local rotation is relative to; 0 = the root.

        Rotations start anew at the root for every chain, also for chains that hang off the spine.
        """
        found = [0] * self.num_joints
        for chain in self.chains:
            for parent, child in zip(chain[1:], chain[2:], strict=False):
                found[child] = parent
        return tuple(found)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
NX, NY = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)
O = (0.0, 0.0, 0.0)  # noqa: E741 - the origin

HUMANML_RAW_OFFSETS = (O, X, NX, Y, NY, NY, Y, NY, NY, Y, Z, Z, Y, X, NX, Z) + (NY,) * 6
# Bone lengths in metres of the reference body (HumanML3D clip 000021, frame 0).
HUMANML_BONE_LENGTHS = (
    0.0, 0.10307397, 0.10988337, 0.13156824, 0.3936232, 0.39018822, 0.14319022, 0.43243307,
    0.42564335, 0.057364736, 0.14338182, 0.14941907, 0.21936005, 0.13748677, 0.14338283,
    0.10303922, 0.13161404, 0.12298438, 0.25684, 0.26309174, 0.26601171, 0.2698764,
)  # fmt: skip

HUMANML = Skeleton(
    name="humanml",
    joint_names=_names(
        "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle "
        "spine3 left_foot right_foot neck left_collar right_collar head left_shoulder "
        "right_shoulder left_elbow right_elbow left_wrist right_wrist"
    ),
    chains=(
        (0, 2, 5, 8, 11),
        (0, 1, 4, 7, 10),
        (0, 3, 6, 9, 12, 15),
        (9, 14, 17, 19, 21),
        (9, 13, 16, 18, 20),
    ),
    raw_offsets=HUMANML_RAW_OFFSETS,
    target_offsets=tuple(
        (x * length, y * length, z * length)
        for (x, y, z), length in zip(HUMANML_RAW_OFFSETS, HUMANML_BONE_LENGTHS, strict=True)
    ),
    face_joints=(2, 1, 17, 16),
    left_foot=(7, 10),
    right_foot=(8, 11),
    leg_joints=(5, 8),
    foot_threshold=0.002,
    fps=20.0,
    min_length=40,
    mirror=(0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20),
)

KIT = Skeleton(
    name="kit",
    joint_names=_names("root BP BT BLN BUN LS LE LW RS RE RW LH LK LA LMrot LF RH RK RA RMrot RF"),
    chains=(
        (0, 11, 12, 13, 14, 15),
        (0, 16, 17, 18, 19, 20),
        (0, 1, 2, 3, 4),
        (3, 5, 6, 7),
        (3, 8, 9, 10),
    ),
    raw_offsets=(O, Y, Y, Y, Y, X, NY, NY, NX, NY, NY, X, NY, NY, Z, Z, NX, NY, NY, Z, Z),
    face_joints=(11, 16, 5, 8),
    left_foot=(19, 20),
    right_foot=(14, 15),
    leg_joints=(17, 18),
    foot_threshold=0.05,
    fps=12.5,
    min_length=24,
    mirror=(0, 1, 2, 3, 4, 8, 9, 10, 5, 6, 7, 16, 17, 18, 19, 20, 11, 12, 13, 14, 15),
    units_per_metre=1000.0,
)

SKELETONS = {skeleton.name: skeleton for skeleton in (HUMANML, KIT)}


def skeleton_for_dim(feature_dim: int) -> Skeleton | None:
    """The skeleton whose features have this width, or None."""
    return next((s for s in SKELETONS.values() if s.feature_dim == feature_dim), None)


def facing_direction(joints: Tensor, skeleton: Skeleton) -> Tensor:
    """Horizontal facing ``[..., 3]`` (unit) of joints ``[..., J, 3]``, from hips and shoulders."""
    right_hip, left_hip, right_shoulder, left_shoulder = skeleton.face_joints
    across = (
        joints[..., right_hip, :]
        - joints[..., left_hip, :]
        + joints[..., right_shoulder, :]
        - joints[..., left_shoulder, :]
    )
    return normalize(_up_cross(across))


def _up_cross(across: Tensor) -> Tensor:
    """(0, 1, 0) x across; forward, when `across` points from the left side to the right."""
    x, _, z = across.unbind(-1)
    return torch.stack([z, torch.zeros_like(x), -x], dim=-1)


def inverse_kinematics(joints: Tensor, skeleton: Skeleton, smooth_facing: bool) -> Tensor:
    """Local swing rotations ``[T, J, 4]`` of joints ``[T, J, 3]``; slot 0 is the root's facing.

    Follows the public extraction including two of its habits that published data carry: the hips
    enter the facing with the opposite sign, and the first frame's facing is the identity.
    """
    right_hip, left_hip, right_shoulder, left_shoulder = skeleton.face_joints
    across = normalize(
        joints[:, left_hip]
        - joints[:, right_hip]
        + joints[:, right_shoulder]
        - joints[:, left_shoulder]
    )
    forward = _up_cross(across)
    if smooth_facing:
        smoothed = gaussian_filter1d(forward.numpy(), FACING_SMOOTHING, axis=0, mode="nearest")
        forward = torch.from_numpy(smoothed)
    root = quat_between(normalize(forward), joints.new_tensor(Z))
    root[0] = root.new_tensor([1.0, 0.0, 0.0, 0.0])

    parents = list(skeleton.parents[1:])
    bones = joints[:, 1:] - joints[:, parents]
    rest = joints.new_tensor(skeleton.raw_offsets)[1:]
    swings = torch.cat([root[:, None], quat_between(rest, normalize(bones))], dim=1)
    previous = swings[:, list(skeleton.previous_in_chain[1:])]
    local = quat_multiply(quat_inverse(previous), swings[:, 1:])
    return torch.cat([root[:, None], local], dim=1)


def forward_kinematics(
    rotations: Tensor, root_positions: Tensor, offsets: Tensor, skeleton: Skeleton
) -> Tensor:
    """Joints ``[T, J, 3]`` from local quaternions ``[T, J, 4]`` as `inverse_kinematics` gives them.

    root_positions ``[T, 3]``; offsets ``[J, 3]``: bone of each joint at rest. The rotation at a
    joint turns the bone that ends there.
    """
    swings = [rotations[..., 0, :]] * skeleton.num_joints
    joints = [root_positions] * skeleton.num_joints
    for chain in skeleton.chains:
        swing = rotations[..., 0, :]
        for parent, child in zip(chain, chain[1:], strict=False):
            swing = quat_multiply(swing, rotations[..., child, :])
            swings[child] = swing
            joints[child] = joints[parent] + quat_rotate(swing, offsets[child])
    return torch.stack(joints, dim=-2)


def bone_offsets(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """Target offsets ``[J, 3]``: raw directions scaled to the bones of one pose ``[J, 3]``."""
    parents = list(skeleton.parents[1:])
    lengths = (pose[1:] - pose[parents]).norm(dim=-1, keepdim=True)
    lengths = torch.cat([lengths.new_zeros(1, 1), lengths])
    return pose.new_tensor(skeleton.raw_offsets) * lengths
