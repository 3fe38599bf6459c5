"""BVH files: what a reader gets back, and that the dataset builder takes them."""

import numpy as np
import pytest
import torch

from data_loaders.bvh import parse_bvh
from data_loaders.features import process_joints
from data_loaders.skeleton import HUMANML, KIT
from export.bvh import continuous_angles, write_bvh
from export.naming import NAMINGS, choose_naming
from prepare.bvh.clip import load_clip
from prepare.bvh.joint_maps import BUILT_IN, choose_joint_map
from tests.export.motions import walk
from utils.errors import UserError
from utils.rotations import quat_to_euler


@pytest.mark.parametrize("name", NAMINGS)
def test_a_reader_gets_the_same_joints(tmp_path, name):
    motion, naming = walk(), NAMINGS[name]
    write_bvh(tmp_path / "a.bvh", motion, naming)
    bvh = parse_bvh(tmp_path / "a.bvh")
    assert bvh.frame_time == 1 / 20
    rows = [bvh.joint_names.index(naming[ours]) for ours in HUMANML.joint_names]
    positions = bvh.global_positions()[:, rows] / 100
    np.testing.assert_allclose(positions, motion.joints.numpy(), atol=1e-6)
    parents = [bvh.joint_names[bvh.parents[row]] for row in rows[1:]]
    names = [naming[HUMANML.joint_names[parent]] for parent in HUMANML.parents[1:]]
    assert parents == names
    assert choose_joint_map(bvh.joint_names).name == name


@pytest.mark.parametrize("name", NAMINGS)
def test_names_are_those_that_prepare_reads(name):
    joint_map = next(m for m in BUILT_IN if m.name == name)
    written = {ours: theirs.rpartition(":")[2] for ours, theirs in NAMINGS[name].items()}
    assert {ours: {theirs: 1.0} for ours, theirs in written.items()} == joint_map.sources


def test_features_come_back_from_the_dataset_builder(tmp_path):
    motion = walk()
    write_bvh(tmp_path / "a.bvh", motion, NAMINGS["lafan1"])
    joints = load_clip(tmp_path / "a.bvh")
    np.testing.assert_allclose(joints, motion.joints.numpy(), atol=1e-6)
    before, after = (process_joints(j).features for j in (motion.joints, joints))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_another_frame_rate_is_the_same_motion(tmp_path):
    motion = walk()
    write_bvh(tmp_path / "a.bvh", motion.resampled(60.0), NAMINGS["smpl"])
    np.testing.assert_allclose(load_clip(tmp_path / "a.bvh"), motion.joints.numpy(), atol=1e-6)


def test_angles_do_not_jump():
    motion = walk().resampled(100.0)
    angles = continuous_angles(quat_to_euler(motion.rotations))
    assert angles.diff(dim=0).abs().max() < torch.pi / 2
    turning = torch.linspace(0, 12, 100, dtype=torch.float64)  # twice around and on
    wrapped = torch.stack([turning.remainder(2 * torch.pi), 0 * turning, 0 * turning], dim=-1)
    torch.testing.assert_close(continuous_angles(wrapped[:, None])[:, 0, 0], turning)


def test_names_of_22_joints_are_not_for_kit():
    assert set(choose_naming("smpl", KIT)) == set(KIT.joint_names)
    with pytest.raises(UserError, match="leave it out"):
        choose_naming("lafan1", KIT)
