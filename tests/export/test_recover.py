"""Rotations of rigid bones from positions: exact where the bones are rigid, nearest elsewhere."""

import pytest
import torch

from data_loaders.skeleton import HUMANML, KIT
from export.body_plan import HUMANML_PLAN, KIT_PLAN
from export.recover import aim, hinge_twist, rig_motion, without_flips
from export.rigid import bones, kabsch, nearest_rigid, rest_offsets
from tests.data_loaders.bodies import moving
from utils.errors import UserError
from utils.rotations import normalize, quat_about, quat_rotate, quat_to_matrix

LEFT_HIP, LEFT_KNEE, LEFT_ANKLE = 1, 4, 7
Y = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)


def rigid_motion(frames: int = 40, seed: int = 0) -> torch.Tensor:
    """Joints ``[T, 22, 3]`` whose bones are rigid around pelvis and chest too."""
    joints = moving(frames, seed)
    return nearest_rigid(joints, HUMANML_PLAN, rest_offsets(joints, HUMANML_PLAN))


def stretched(joints: torch.Tensor, size: float, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return joints + size * torch.randn(joints.shape, generator=rng, dtype=torch.float64)


def test_rigid_motions_come_back_exactly():
    joints = rigid_motion()
    motion = rig_motion(joints, HUMANML_PLAN, HUMANML.fps)
    torch.testing.assert_close(motion.joints, joints, atol=1e-9, rtol=0)
    matrix = quat_to_matrix(motion.rotations)
    torch.testing.assert_close(
        torch.linalg.det(matrix), torch.ones_like(matrix[..., 0, 0]), atol=1e-9, rtol=0
    )


def test_bones_keep_their_lengths_and_the_error_stays_small():
    joints = stretched(rigid_motion(), 0.01)
    motion = rig_motion(joints, HUMANML_PLAN, HUMANML.fps)
    lengths = bones(motion.joints, HUMANML_PLAN).norm(dim=-1)
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths), atol=1e-9, rtol=0)
    distance = (motion.joints - joints).norm(dim=-1)
    noise = (joints - rigid_motion()).norm(dim=-1)
    assert distance.mean() < noise.mean(), "the nearest rigid pose is nearer than the first one"


def test_no_error_is_passed_on_to_the_end_of_a_limb():
    joints = rigid_motion()
    longer = joints.clone()
    longer[20, LEFT_KNEE] += 0.04 * normalize(joints[20, LEFT_KNEE] - joints[20, LEFT_HIP])
    motion = rig_motion(longer, HUMANML_PLAN, HUMANML.fps)
    distance = (motion.joints[20] - longer[20]).norm(dim=-1)
    assert distance[LEFT_ANKLE] < distance[LEFT_KNEE] / 3
    assert distance[10] < 0.004, "the foot is where it was"


def test_place_and_facing_change_only_the_root():
    joints = stretched(rigid_motion(), 0.01)
    turn = quat_about("y", torch.tensor(2.0, dtype=torch.float64))
    there = rig_motion(joints, HUMANML_PLAN, HUMANML.fps)
    moved = rig_motion(quat_rotate(turn, joints) + Y, HUMANML_PLAN, HUMANML.fps)
    torch.testing.assert_close(moved.offsets, there.offsets)
    same = quat_to_matrix(moved.rotations[:, 1:]), quat_to_matrix(there.rotations[:, 1:])
    torch.testing.assert_close(*same, atol=1e-7, rtol=0)
    torch.testing.assert_close(moved.root, quat_rotate(turn, there.root) + Y)


def test_the_t_pose_is_upright_with_arms_out():
    motion = rig_motion(rigid_motion(), HUMANML_PLAN, HUMANML.fps)
    rest = dict(zip(HUMANML.joint_names, motion.t_pose(), strict=True))
    assert rest["head"][1] > rest["spine1"][1] > 0 > rest["left_knee"][1] > rest["left_ankle"][1]
    assert rest["left_foot"][2] > rest["left_ankle"][2], "toes ahead"
    assert rest["left_wrist"][0] > rest["left_shoulder"][0] > 0 > rest["right_wrist"][0]
    height = rest["left_wrist"][1] - rest["left_shoulder"][1]
    assert abs(height) < 1e-9


def test_a_bent_knee_turns_about_its_hinge_alone():
    """The thigh is turned about its own length; the shin is bent; positions alone say so."""
    rest = torch.tensor([0.0, -0.4, 0.0], dtype=torch.float64)
    axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    yaw = torch.tensor(0.5, dtype=torch.float64)
    bent = quat_rotate(quat_about("x", torch.tensor(1.5, dtype=torch.float64)), rest)
    shin = quat_rotate(quat_about("y", yaw), bent).repeat(20, 1)
    still = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).repeat(20, 1)
    twist = hinge_twist(still, rest, axis, shin, 20.0)
    hinge = quat_rotate(twist, axis)
    wanted = quat_rotate(quat_about("y", yaw), axis)
    angle = (hinge * wanted).sum(-1).clamp(-1, 1).acos().rad2deg()
    assert angle.max() < 6, "STRAIGHT holds a little back"
    torch.testing.assert_close(quat_rotate(twist, rest), rest.expand(20, 3))
    straight = hinge_twist(still, rest, axis, rest.repeat(20, 1), 20.0)
    torch.testing.assert_close(straight, still)


def test_the_twist_of_the_spine_is_shared_out():
    upright = rigid_motion(2)[:1].repeat(30, 1, 1)
    motion = rig_motion(upright, HUMANML_PLAN, HUMANML.fps)
    chest = [9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
    turn = quat_about("y", torch.tensor(0.6, dtype=torch.float64))
    top = motion.joints[:, [9]]
    twisted = motion.joints.clone()
    twisted[:, chest] = quat_rotate(turn, motion.joints[:, chest] - top) + top
    after = rig_motion(twisted, HUMANML_PLAN, HUMANML.fps)
    before, after = motion.global_rotations[0], after.global_rotations[0]
    turned = [2 * (before[j] * after[j]).sum().abs().clamp(max=1).acos() for j in (0, 3, 6, 9)]
    torch.testing.assert_close(
        torch.stack(turned), torch.tensor([0, 0.2, 0.4, 0.6]).double(), atol=0.1, rtol=0
    )


def test_aim_survives_the_opposite_direction():
    still = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    for target in (-Y, Y):
        turn = aim(still, Y, target[None])
        torch.testing.assert_close(quat_rotate(turn, Y), target[None])


def test_kabsch_finds_the_rotation_and_never_a_mirror_image():
    rng = torch.Generator().manual_seed(0)
    rest = torch.randn(3, 3, generator=rng, dtype=torch.float64)
    turn = normalize(torch.randn(10, 4, generator=rng, dtype=torch.float64))
    found = kabsch(rest, quat_rotate(turn[:, None], rest))
    torch.testing.assert_close(quat_to_matrix(found), quat_to_matrix(turn))
    mirrored = kabsch(rest, (rest * torch.tensor([-1.0, 1, 1]).double())[None])
    torch.testing.assert_close(torch.linalg.det(quat_to_matrix(mirrored)), torch.ones(1).double())


def test_signs_do_not_flip():
    motion = rig_motion(rigid_motion(), HUMANML_PLAN, HUMANML.fps)
    flipped = motion.rotations.clone()
    flipped[7:9] *= -1
    torch.testing.assert_close(without_flips(flipped), motion.rotations)


def test_other_frame_rates_pass_through_the_same_poses():
    motion = rig_motion(rigid_motion(31), HUMANML_PLAN, HUMANML.fps)
    finer = motion.resampled(60.0)
    assert len(finer) == 91
    torch.testing.assert_close(finer.joints[::3], motion.joints, atol=1e-9, rtol=0)
    lengths = bones(finer.joints, HUMANML_PLAN).norm(dim=-1)
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths), atol=1e-9, rtol=0)
    assert len(motion.resampled(12.0)) == 19
    torch.testing.assert_close(motion.resampled(10.0).root, motion.root[::2])


def test_kits_21_joints_have_a_body_too():
    rng = torch.Generator().manual_seed(0)
    rest = KIT_PLAN.directions() * 0.2
    places = [torch.zeros(3, dtype=torch.float64)]
    for joint, parent in enumerate(KIT.parents[1:], start=1):
        places.append(places[parent] + rest[joint])
    joints = torch.stack(places).repeat(20, 1, 1)
    joints += 0.005 * torch.randn(joints.shape, generator=rng, dtype=torch.float64)
    motion = rig_motion(joints, KIT_PLAN, KIT.fps)
    assert (motion.joints - joints).norm(dim=-1).mean() < 0.01


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_frames_are_named(value):
    joints = rigid_motion(10)
    joints[4, 3, 1] = value
    with pytest.raises(UserError, match="frame 4 holds NaN"):
        rig_motion(joints, HUMANML_PLAN, HUMANML.fps)


def test_a_bone_without_length_is_named():
    joints = rigid_motion(10)
    joints[6, LEFT_ANKLE] = joints[6, LEFT_KNEE]
    with pytest.raises(UserError, match="frame 6: left_ankle lies on its parent"):
        rig_motion(joints, HUMANML_PLAN, HUMANML.fps)
