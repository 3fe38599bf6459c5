import math

import numpy as np
import pytest
import torch

from data_loaders.features import (
    feature_slices,
    features_to_joints,
    features_to_joints_by_rotation,
    mirror_joints,
    process_joints,
    retarget,
)
from data_loaders.skeleton import HUMANML, KIT, SKELETONS, bone_offsets, facing_direction
from tests.data_loaders.bodies import OFFSETS, moving, pose, symmetric_offsets, upright
from utils.rotations import quat_about, quat_rotate

PARTS = feature_slices(HUMANML)
MIRROR = list(HUMANML.mirror)


@pytest.fixture(scope="module")
def motion():
    return process_joints(moving(90))


# Out and back


def test_positions_invert_the_features(motion):
    decoded = features_to_joints(motion.features)
    torch.testing.assert_close(decoded, motion.global_positions[:-1], atol=2e-5, rtol=0)


def test_rotations_invert_the_features(motion):
    decoded = features_to_joints_by_rotation(motion.features)
    torch.testing.assert_close(decoded, motion.global_positions[:-1], atol=5e-5, rtol=0)


def test_rotations_take_the_bones_they_are_given(motion):
    longer = 1.5 * torch.tensor(HUMANML.target_offsets)
    decoded = features_to_joints_by_rotation(motion.features, target_offsets=longer)
    for frame in (0, 40):
        torch.testing.assert_close(bone_offsets(decoded[frame], HUMANML), longer)


def test_other_skeleton_needs_its_bones_and_inverts():
    rng = torch.Generator().manual_seed(3)
    offsets = 300 * torch.tensor(KIT.raw_offsets, dtype=torch.float64)
    phase = torch.rand(KIT.num_joints, generator=rng, dtype=torch.float64)
    swing = 0.3 * torch.sin(torch.arange(50)[:, None] / 8 + 6 * phase)
    joints = pose(swing, 0.5 * swing, None, swing[:, 0], offsets, KIT)
    with pytest.raises(ValueError, match="kit skeleton has no public reference body"):
        process_joints(joints, KIT)
    motion = process_joints(joints, KIT, offsets)
    assert motion.features.shape == (49, 251)
    for decoded in (
        features_to_joints(motion.features, KIT),
        features_to_joints_by_rotation(motion.features, KIT, offsets),
    ):
        torch.testing.assert_close(decoded, motion.global_positions[:-1], atol=0.05, rtol=0)


def test_decoding_keeps_sequences_of_a_batch_apart():
    features = [process_joints(moving(40, seed)).features for seed in range(6)]
    batch = torch.stack(features).unflatten(0, (2, 3))
    for decode in (features_to_joints, features_to_joints_by_rotation):
        expected = torch.stack([decode(f) for f in features]).unflatten(0, (2, 3))
        torch.testing.assert_close(decode(batch), expected)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_columns_are_covered_once(skeleton):
    columns = np.concatenate([np.r_[part] for part in vars(feature_slices(skeleton)).values()])
    np.testing.assert_array_equal(columns, np.arange(skeleton.feature_dim))


# What does not matter, and what is put right


def test_place_and_heading_do_not_matter(motion):
    turned = quat_rotate(quat_about("y", torch.tensor(2.2, dtype=torch.float64)), moving(90))
    elsewhere = turned + torch.tensor([7.0, -3.0, 4.0])
    features = process_joints(elsewhere).features
    torch.testing.assert_close(features, motion.features, atol=1e-5, rtol=0)


def test_size_of_the_body_does_not_matter(motion):
    features = process_joints(1.3 * moving(90)).features
    torch.testing.assert_close(features, motion.features, atol=1e-5, rtol=0)


def test_motion_starts_on_the_floor_at_the_origin_facing_front(motion):
    positions = motion.global_positions
    assert positions[..., 1].min() == 0
    assert positions[0, 0, [0, 2]].abs().max() == 0
    facing = facing_direction(positions[0], HUMANML)
    torch.testing.assert_close(facing, torch.tensor([0.0, 0.0, 1.0]), atol=1e-6, rtol=0)


def test_retargeting_changes_the_bones_and_keeps_their_directions():
    factor = torch.linspace(0.7, 1.4, 22, dtype=torch.float64)[:, None]
    factor[HUMANML.leg_joints, :] = 0.8
    source, reference = moving(30, offsets=factor * OFFSETS), moving(30)
    body = retarget(source, HUMANML)
    torch.testing.assert_close(body - body[:, :1], reference - reference[:, :1])
    torch.testing.assert_close(body[:, 0], source[:, 0] / 0.8)


# Closed forms


def test_straight_walk_is_a_constant_velocity():
    path = torch.zeros(60, 3, dtype=torch.float64)
    path[:, 2] = 0.06 * torch.arange(60)
    features = process_joints(upright(60, path)).features
    assert features[:, PARTS.root_angular].abs().max() < 1e-6
    torch.testing.assert_close(
        features[:, PARTS.root_velocity], torch.tensor([[0.0, 0.06]]).repeat(59, 1)
    )
    velocities = features[:, PARTS.velocities].unflatten(1, (22, 3))
    torch.testing.assert_close(velocities, torch.tensor([0.0, 0.0, 0.06]).expand(59, 22, 3))
    assert features[:, PARTS.contacts].sum() == 0


def test_turn_rate_is_half_the_turn_per_frame():
    rate = 0.012  # to the left; below half a turn in all
    yaw = rate * torch.arange(200, dtype=torch.float64)
    features = process_joints(upright(200, yaw=yaw)).features
    middle = features[80:118, PARTS.root_angular]  # where smoothing sees no end of the clip
    torch.testing.assert_close(middle, torch.full_like(middle, -rate / 2), atol=1e-6, rtol=0)


def test_root_velocity_is_in_the_next_frame_and_joint_velocities_in_this_one():
    rate, step = 0.012, 0.05
    yaw = rate * torch.arange(200, dtype=torch.float64)
    path = step * torch.stack([yaw.sin(), torch.zeros(200), yaw.cos()], dim=1).cumsum(0)
    features = process_joints(upright(200, path, yaw)).features[80:118]
    ahead = torch.tensor([0.0, step]).expand(38, 2)
    torch.testing.assert_close(features[:, PARTS.root_velocity], ahead, atol=1e-6, rtol=0)
    pelvis = features[:, PARTS.velocities][:, [0, 2]]
    turned = step * torch.tensor([math.sin(rate), math.cos(rate)]).expand(38, 2)
    torch.testing.assert_close(pelvis, turned, atol=1e-6, rtol=0)


def test_only_the_foot_that_stays_is_planted():
    bend = torch.zeros(10, 22, dtype=torch.float64)
    bend[:, HUMANML.joint_names.index("right_knee")] = -0.12 * torch.arange(10)
    joints = pose(bend, torch.zeros_like(bend), None, None, OFFSETS, HUMANML)
    contacts = process_joints(joints).features[:, PARTS.contacts]
    assert contacts.tolist() == [[1.0, 1.0, 0.0, 0.0]] * 9


@pytest.mark.parametrize(("step", "planted"), [(0.044, 1.0), (0.046, 0.0)])
def test_contact_is_a_squared_step_below_the_threshold(step, planted):
    path = torch.zeros(10, 3, dtype=torch.float64)
    path[:, 0] = step * torch.arange(10)  # the threshold is 0.0447 m per frame
    contacts = process_joints(upright(10, path)).features[:, PARTS.contacts]
    assert (contacts == planted).all()


# Mirror images


def test_mirroring_twice_changes_nothing():
    joints = moving(10)
    assert (mirror_joints(mirror_joints(joints)) == joints).all()
    assert (mirror_joints(joints) - joints).abs().max() > 0.1


def mirror_features(features):
    """The features that the mirror image should have."""
    sign = torch.tensor([-1.0, 1.0, 1.0])
    sixd_sign = torch.tensor([1.0, -1, -1, -1, 1, 1])  # M R M with M = diag(-1, 1, 1)
    out = features.clone()
    out[:, PARTS.root_angular] *= -1
    out[:, 1] *= -1
    others = [joint - 1 for joint in MIRROR[1:]]
    for part, size, order, signs in (
        (PARTS.positions, 3, others, sign),
        (PARTS.rotations, 6, others, sixd_sign),
        (PARTS.velocities, 3, MIRROR, sign),
    ):
        values = features[:, part].unflatten(1, (-1, size))
        out[:, part] = (values[:, order] * signs).flatten(1)
    out[:, PARTS.contacts] = features[:, PARTS.contacts][:, [2, 3, 0, 1]]
    return out


def test_features_of_the_mirror_image_are_the_mirrored_features():
    offsets = symmetric_offsets()
    joints = moving(60, seed=4, offsets=offsets)
    features = process_joints(joints, target_offsets=offsets).features
    mirrored = process_joints(mirror_joints(joints), target_offsets=offsets).features
    torch.testing.assert_close(mirrored, mirror_features(features), atol=1e-5, rtol=0)
    assert (mirrored - features).abs().max() > 0.1
    decoded = features_to_joints(mirrored)
    expected = mirror_joints(features_to_joints(features))
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=0)


# Input that cannot be used


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.zeros((10, 21, 3)), r"expected \[T, 22, 3\]"),
        (np.zeros((22, 3)), "have shape"),
        (upright(1), "1 frames are too few"),
        (np.full((5, 22, 3), np.nan), "NaN or infinite"),
        (np.zeros((5, 22, 3)), "a bone has no length"),
    ],
)
def test_unusable_joints_are_refused(joints, message):
    with pytest.raises(ValueError, match=message):
        process_joints(joints)
