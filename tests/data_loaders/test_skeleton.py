import math

import pytest
import torch

from data_loaders.skeleton import (
    HUMANML,
    KIT,
    SKELETONS,
    bone_offsets,
    facing_direction,
    forward_kinematics,
    inverse_kinematics,
    skeleton_for_dim,
)
from tests.data_loaders.bodies import OFFSETS, moving, upright

both = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)


def kit_offsets():
    """KIT's bones, all 0.3 long."""
    return 0.3 * torch.tensor(KIT.raw_offsets, dtype=torch.float64)


def test_feature_widths_name_their_skeleton():
    assert (HUMANML.feature_dim, KIT.feature_dim) == (263, 251)
    assert skeleton_for_dim(263) is HUMANML
    assert skeleton_for_dim(251) is KIT
    assert skeleton_for_dim(262) is None


@both
def test_every_joint_hangs_on_the_root(skeleton):
    for joint in range(skeleton.num_joints):
        seen = [joint]
        while skeleton.parents[seen[-1]] >= 0:
            seen.append(skeleton.parents[seen[-1]])
            assert len(seen) <= skeleton.num_joints
        assert seen[-1] == 0
    assert skeleton.parents.count(-1) == 1


@both
def test_mirror_swaps_whole_limbs(skeleton):
    mirror = skeleton.mirror
    assert [mirror[joint] for joint in mirror] == list(range(skeleton.num_joints))
    for joint in range(1, skeleton.num_joints):
        assert skeleton.parents[mirror[joint]] == mirror[skeleton.parents[joint]]
        x, y, z = skeleton.raw_offsets[joint]
        assert skeleton.raw_offsets[mirror[joint]] == (-x, y, z)
    assert [mirror[joint] for joint in skeleton.left_foot] == list(skeleton.right_foot)


def test_mirror_swaps_the_names_of_sides():
    for joint, other in enumerate(HUMANML.mirror):
        swapped = {"left": "right", "right": "left"}
        side, _, part = HUMANML.joint_names[joint].partition("_")
        expected = f"{swapped[side]}_{part}" if part else side
        assert HUMANML.joint_names[other] == expected


def test_facing_follows_the_heading():
    yaw = torch.linspace(-3, 3, 13, dtype=torch.float64)
    facing = facing_direction(upright(13, yaw=yaw), HUMANML)
    expected = torch.stack([yaw.sin(), torch.zeros(13), yaw.cos()], dim=1)
    torch.testing.assert_close(facing, expected)


def test_rest_pose_adds_up_the_bones():
    joints = upright(1)[0]
    for joint in range(1, HUMANML.num_joints):
        bone = joints[joint] - joints[HUMANML.parents[joint]]
        torch.testing.assert_close(bone, OFFSETS[joint])
    heights = dict(zip(HUMANML.joint_names, joints[:, 1].tolist(), strict=True))
    assert heights["right_foot"] == pytest.approx(0.0, abs=0.02)
    assert 0.8 < heights["pelvis"] < 1.0
    assert 1.3 < heights["head"] < 1.7
    assert (joints[HUMANML.left_foot, 0] > 0).all()  # left is at +X


@pytest.mark.parametrize("smooth", [False, True])
def test_inverse_then_forward_kinematics_returns_the_joints(smooth):
    joints = moving(60)
    rotations = inverse_kinematics(joints, HUMANML, smooth_facing=smooth)
    own = bone_offsets(joints[7], HUMANML)
    torch.testing.assert_close(forward_kinematics(rotations, joints[:, 0], own, HUMANML), joints)


def test_kinematics_of_the_other_skeleton():
    rng = torch.Generator().manual_seed(1)
    rotations = torch.randn(5, KIT.num_joints, 4, generator=rng, dtype=torch.float64)
    rotations = rotations + rotations.new_tensor([4.0, 0, 0, 0])
    rotations = rotations / rotations.norm(dim=-1, keepdim=True)
    root = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    joints = forward_kinematics(rotations, root, kit_offsets(), KIT)
    solved = inverse_kinematics(joints, KIT, smooth_facing=False)
    torch.testing.assert_close(bone_offsets(joints[2], KIT), kit_offsets())
    torch.testing.assert_close(forward_kinematics(solved, joints[:, 0], kit_offsets(), KIT), joints)


def test_bone_lengths_do_not_change_with_the_pose():
    for pose in moving(30)[::10]:
        torch.testing.assert_close(bone_offsets(pose, HUMANML), OFFSETS)


def test_root_slot_turns_the_facing_to_the_front():
    yaw = torch.linspace(0.0, math.pi / 2, 10, dtype=torch.float64)
    root = inverse_kinematics(upright(10, yaw=yaw), HUMANML, smooth_facing=False)[:, 0]
    torch.testing.assert_close(2 * torch.atan2(root[:, 2], root[:, 0])[1:], -yaw[1:])
    torch.testing.assert_close(root[0], root.new_tensor([1.0, 0, 0, 0]))
