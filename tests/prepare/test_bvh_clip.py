import numpy as np
import pytest

from data_loaders.skeleton import HUMANML
from prepare.bvh.clip import UNITS, load_clip, resample
from prepare.bvh.joint_maps import MIXAMO
from prepare.bvh.lengths import LengthOptions, fit_length
from tests.prepare.rigs import RIGS, bvh_text
from utils.errors import UserError



def test_axes_and_units_do_not_change_the_joints(tmp_path):
    path = tmp_path / "clip.bvh"
    path.write_text(bvh_text())
    expected = load_clip(path)
    assert expected.shape == (50, 22, 3)
    pelvis = expected[:, 0]
    np.testing.assert_allclose(pelvis[:, 2], 0.8 * np.arange(len(pelvis)) / 20, atol=1e-6)
    for z_up in (False, True):
        for unit, metres in UNITS.items():
            path.write_text(bvh_text(scale=0.01 / metres, z_up=z_up, prefix="mixamorig:"))
            np.testing.assert_allclose(load_clip(path), expected, atol=2e-4)
            stated = load_clip(path, MIXAMO, up_axis="z" if z_up else "y", unit=unit)
            np.testing.assert_allclose(stated, expected, atol=2e-4)


def test_unclear_units_and_axes_are_told(tmp_path):
    path = tmp_path / "clip.bvh"
    path.write_text(bvh_text(scale=300.0))
    with pytest.raises(UserError, match=r"clip\.bvh.*--unit"):
        load_clip(path)
    assert load_clip(path, unit=str(0.01 / 300))[0, 0, 1] == pytest.approx(0.9)
    path.write_text(bvh_text(scale=-1.0))
    with pytest.raises(UserError, match="--up_axis"):
        load_clip(path)


def test_resampling_hits_the_pose_at_its_time():
    times = np.arange(31) / 30
    positions = np.stack([times, times**2, 1 - times], axis=-1)[:, None]
    slower = resample(positions, 1 / 30, 20)
    np.testing.assert_allclose(slower[:, 0, 0], np.arange(21) / 20, atol=1e-12)
    np.testing.assert_array_equal(slower[::2], positions[::3])
    np.testing.assert_allclose(resample(positions, 1 / 30, 30), positions, atol=1e-12)
    assert len(resample(positions[:1], 1 / 30, 20)) == 1



# Lengths


def clip_of(rows):
    joints = np.zeros((rows + 1, 22, 3))
    joints[..., 0] = np.arange(rows + 1)[:, None]
    return joints


def test_short_clips_are_skipped_or_held(tmp_path):
    with pytest.raises(UserError, match="39 frames"):
        fit_length(clip_of(39), options_for(tmp_path))
    padding = options_for(tmp_path, pad_short=True, min_seconds=1.0)
    with pytest.raises(UserError, match="19 frames"):
        fit_length(clip_of(19), padding)
    (held,) = fit_length(clip_of(20), padding)
    assert held[:, 0, 0].tolist() == [*range(21), *[20] * 20]


def test_long_clips_are_cut(tmp_path):
    for rows in (40, 199):
        assert [len(p) for p in fit_length(clip_of(rows), options_for(tmp_path))] == [rows + 1]
    (start,) = fit_length(clip_of(450), options_for(tmp_path))
    assert start[:, 0, 0].tolist() == [*range(197)]
    pieces = fit_length(clip_of(450), options_for(tmp_path, long="split"))
    assert [(piece[0, 0, 0], len(piece) - 1) for piece in pieces] == [
        (0, 196),
        (196, 196),
        (392, 58),
    ]
    assert len(fit_length(clip_of(196 + 39), options_for(tmp_path, long="split"))) == 1


def test_pieces_of_a_long_clip_are_numbered(mocap):
    (mocap / "bvh" / "take0" / "walk0.bvh").write_text(bvh_text(frames=400, turn=5.0))
    write_captions(mocap, [["walk0", "a person walks and turns left"]])
    report = build_dataset(options_for(mocap, long="split"))
    assert read_names(mocap, "train") == ["000000_1", "M000000_1", "000000_2", "M000000_2"]
    assert report.cut == ["take0/walk0.bvh"]


