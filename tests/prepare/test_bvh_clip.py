import re

import numpy as np
import pytest
import torch

from data_loaders.features import process_joints
from data_loaders.skeleton import HUMANML
from prepare.bvh.clip import UNITS, load_clip, resample
from prepare.bvh.convert import ClipOptions, Job, convert_file
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


def test_more_than_an_hour_is_refused_before_memory_is_taken():
    with pytest.raises(UserError, match=r"more than an hour.*Frame Time"):
        resample(np.zeros((3602, 1, 3)), 1.0, 20)


LIMBS = [
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")
]


@pytest.mark.parametrize("rig", RIGS)
def test_one_body_in_the_names_of_any_rig_has_the_same_joints(tmp_path, rig):
    """Also where toes are end sites; spines have fewer or more joints, on one straight line."""
    path = tmp_path / "clip.bvh"
    path.write_text(bvh_text("mixamo"))
    expected = load_clip(path)
    path.write_text(bvh_text(rig))
    joints = load_clip(path)
    same = [HUMANML.joint_names.index(name) for name in ("pelvis", "neck", "head", *LIMBS)]
    np.testing.assert_allclose(joints[:, same], expected[:, same], atol=1e-6)
    spine = [HUMANML.joint_names.index(f"spine{number}") for number in (1, 2, 3)]
    heights = joints[0, spine, 1] - joints[0, 0, 1]
    np.testing.assert_allclose(heights / 0.52, [0.24, 0.5, 0.6], atol=0.05)
    assert torch.isfinite(process_joints(joints).features).all()


# Files with numbers that nobody moves by


def convert(folder, text) -> str:
    """Why a file with this text is not used, or nothing."""
    path = folder / "clip.bvh"
    path.write_text(text)
    for part in ("new_joint_vecs", "new_joints"):
        (folder / part).mkdir(exist_ok=True)
    outcome = convert_file(Job(path, "000000", "clip.bvh"), folder, None, ClipOptions())
    written = list(folder.rglob("*.npy"))
    assert bool(written) == bool(outcome.written)
    return outcome.skipped


def with_channel(row: int, column: int, value: str) -> str:
    """A file in which one number of the motion block is another."""
    lines = bvh_text().splitlines()
    start = lines.index("MOTION") + 3
    words = lines[start + row].split()
    lines[start + row] = " ".join([*words[:column], value, *words[column + 1 :]])
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (7, "90.01e100", r"line {line}: yrotation of \w+ is 9.001e\+101"),
        (0, "1e12", r"line {line}: xposition of Hips is 1e\+12"),
        (2, "nan", r"line {line}: zposition of Hips is nan"),
        (0, "5000", r"at 0.95 s a joint moves at [\d.e+]+ m/s; no person"),  # 50 m between frames
    ],
)
def test_impossible_motions_are_told_with_their_place(tmp_path, column, value, message):
    line = bvh_text().splitlines().index("MOTION") + 4 + 30
    skipped = convert(tmp_path, with_channel(30, column, value))
    assert re.match(message.format(line=line), skipped), skipped


def test_possible_motions_are_written(tmp_path):
    assert convert(tmp_path, with_channel(30, 7, "170")) == ""


# Lengths


def clip_of(rows):
    joints = np.zeros((rows + 1, 22, 3))
    joints[..., 0] = np.arange(rows + 1)[:, None]
    return joints


def test_short_clips_are_skipped_or_held():
    with pytest.raises(UserError, match="39 frames"):
        fit_length(clip_of(39), LengthOptions())
    padding = LengthOptions(pad_short=True, min_seconds=1.0)
    with pytest.raises(UserError, match="19 frames"):
        fit_length(clip_of(19), padding)
    (held,) = fit_length(clip_of(20), padding)
    assert held[:, 0, 0].tolist() == [*range(21), *[20] * 20]


def test_long_clips_are_cut():
    for rows in (40, 199):
        assert [len(p) for p in fit_length(clip_of(rows), LengthOptions())] == [rows + 1]
    (start,) = fit_length(clip_of(450), LengthOptions())
    assert start[:, 0, 0].tolist() == [*range(197)]
    pieces = fit_length(clip_of(450), LengthOptions(long="split"))
    assert [(piece[0, 0, 0], len(piece) - 1) for piece in pieces] == [
        (0, 196),
        (196, 196),
        (392, 58),
    ]
    assert len(fit_length(clip_of(196 + 39), LengthOptions(long="split"))) == 1
