"""The generated set on KIT's body: its joints, its unit, its frame rate, and what it means."""

import numpy as np
import pytest
import torch

from data_loaders.features import features_to_joints, features_to_joints_by_rotation
from data_loaders.humanml import open_dataset
from data_loaders.skeleton import KIT
from prepare.procedural.dataset import Options, build, make_clip
from prepare.procedural.kit_body import UNITS_PER_METRE, kit_joints, process_kit, rest_offsets

CLIPS = [make_clip(np.random.default_rng([3, index])) for index in range(12)]
STRAIGHT = [clip for clip in CLIPS if "turn" not in clip.name and "circle" not in clip.name]


@pytest.mark.parametrize("clip", STRAIGHT, ids=lambda clip: clip.name)
def test_positions_and_rotations_tell_one_motion(clip) -> None:
    motion = process_kit(clip.joints)
    joints = features_to_joints(motion.features, KIT)
    rest = rest_offsets(kit_joints(clip.joints)[0])
    by_rotation = features_to_joints_by_rotation(motion.features, KIT, rest)
    assert motion.features.shape[1] == 251
    assert len(motion.features) / KIT.fps == pytest.approx(len(clip.joints) / 20, abs=0.2)
    torch.testing.assert_close(joints, by_rotation, rtol=0, atol=0.01)
    assert 400 < joints[:, 0, 1].mean() < 600  # KIT's own mean is 560
    ways = {"walk": 1, "run": 1, "walk-back": -1}
    way = ways.get(clip.name.partition("+")[0], 0)
    distance = float(joints[-1, 0, 2] - joints[0, 0, 2])
    assert distance * way > 300 if way else abs(distance) < 300


def test_the_body_is_the_procedural_one_in_another_unit() -> None:
    metres = CLIPS[0].joints
    body = kit_joints(metres) / UNITS_PER_METRE
    for theirs, ours in ((7, 21), (10, 20), (15, 11), (20, 10), (4, 15)):
        np.testing.assert_allclose(body[0, theirs], metres[0, ours])
        np.testing.assert_allclose(body[25, theirs], metres[40, ours])  # 2 s later


def test_the_set_opens_as_kit(tmp_path) -> None:
    build(Options(out=str(tmp_path / "data"), num_clips=60, skeleton="kit"))
    for name in ("kit", "data"):
        data = open_dataset(name, "train", str(tmp_path / "data"))
        assert (data.skeleton, data.stats.feature_dim) == (KIT, 251)
    assert data.annotations.captions
    assert not any(note.facts for note in data.annotations.captions.values())
