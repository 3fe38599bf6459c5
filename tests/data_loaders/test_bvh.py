import itertools
import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_loaders.bvh import parse_bvh
from tests.paths import MOCAP_DIR, needs_mocap
from utils.errors import UserError

TWO_BONES = """HIERARCHY
ROOT Hips
{{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition {order}
  JOINT Upper Leg {{
    OFFSET 0 -4 0
    CHANNELS {leg}
    JOINT Foot
    {{
      OFFSET 0 -3 1
      End Site
      {{
        OFFSET 0 0 9
      }}
    }}
  }}
}}
MOTION
Frames:\t{frames}
Frame Time:\t{time}
{rows}
"""


def write(folder, rows, order="Zrotation Xrotation Yrotation", leg=None, frames=None, time="0.05"):
    text = TWO_BONES.format(
        order=order,
        leg=leg or f"3 {order}",
        frames=len(rows) if frames is None else frames,
        time=time,
        rows="\n".join(" ".join(map(str, row)) for row in rows),
    )
    path = folder / "clip.bvh"
    path.write_text(text)
    return path


@pytest.mark.parametrize("order", list(itertools.permutations("XYZ")))
def test_channels_turn_in_file_order(tmp_path, order):
    rows = np.random.default_rng(0).uniform(-170, 170, (5, 9))
    path = write(tmp_path, rows, " ".join(f"{axis}rotation" for axis in order))
    positions = parse_bvh(path).global_positions()
    # Upper case axes are intrinsic rotations: R = R1 R2 R3 on column vectors.
    hips = Rotation.from_euler("".join(order), rows[:, 3:6], degrees=True)
    leg = hips * Rotation.from_euler("".join(order), rows[:, 6:9], degrees=True)
    knee = rows[:, :3] + hips.apply([0, -4, 0])
    np.testing.assert_allclose(positions[:, 0], rows[:, :3], atol=1e-12)
    np.testing.assert_allclose(positions[:, 1], knee, atol=1e-12)
    np.testing.assert_allclose(positions[:, 2], knee + leg.apply([0, -3, 1]), atol=1e-12)


def test_end_sites_are_joints_without_channels(tmp_path):
    bvh = parse_bvh(write(tmp_path, [[0.0] * 9]))
    assert bvh.joint_names == ("Hips", "Upper Leg", "Foot", "Foot_end")
    assert bvh.parents == (-1, 0, 1, 2)
    assert bvh.offsets.tolist() == [[1, 2, 3], [0, -4, 0], [0, -3, 1], [0, 0, 9]]
    assert bvh.channels[2:] == ((), ())
    quarter = [0, 0, 0, 90, 0, 0, 0, 0, 0]  # Rz(90) takes -y to +x
    toes = parse_bvh(write(tmp_path, [quarter])).global_positions()[0, 3]
    np.testing.assert_allclose(toes, [4 + 3, 0, 1 + 9], atol=1e-12)


def test_position_channels_replace_the_offset(tmp_path):
    rows = [[0, 10, 0, 0, 0, 90, 5, 0, 0]]
    path = write(tmp_path, rows, leg="3 Xposition Zposition Yrotation")
    positions = parse_bvh(path).global_positions()[0]
    # Ry(90) takes +x to -z; the y without a channel stays at the OFFSET.
    np.testing.assert_allclose(positions[1], [0, 10 - 4, -5], atol=1e-12)


def test_one_rotation_channel(tmp_path):
    path = write(tmp_path, [[0, 0, 0, 0, 0, 0, 90]], leg="1 Xrotation")
    foot = parse_bvh(path).global_positions()[0, 2]
    np.testing.assert_allclose(foot, [0, -4 - 1, -3], atol=1e-12)


def test_windows_line_ends_and_upper_case_read_the_same(tmp_path):
    path = write(tmp_path, np.arange(18).reshape(2, 9).tolist())
    expected = parse_bvh(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").replace(b"rotation", b"ROTATION"))
    actual = parse_bvh(path)
    assert actual.channels == expected.channels
    np.testing.assert_array_equal(actual.motion, expected.motion)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0.0333333", 1 / 30),
        ("0.033", 1 / 30),
        ("0.008333", 1 / 120),
        ("8.33333e-03", 1 / 120),
        ("0.05", 0.05),
        ("0.0333667", 0.0333667),  # 29.97 frames per second
    ],
)
def test_rounded_frame_times_are_made_exact(tmp_path, text, seconds):
    assert parse_bvh(write(tmp_path, [[0.0] * 9], time=text)).frame_time == seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": [[0] * 9], "frames": 0}, "zero frames"),
        ({"rows": []}, "zero frames"),
        ({"rows": [], "frames": 3}, "empty"),
        ({"rows": [[0] * 9] * 2, "frames": 3}, "holds 2 rows of 9"),
        ({"rows": [[0] * 9, [0] * 4]}, "damaged"),
        ({"rows": [[0] * 8]}, "announces 1 rows of 9"),
        ({"rows": [[0] * 8 + ["oops"]]}, "damaged"),
        ({"rows": [[0] * 9, [0] * 8 + ["nan"]]}, "yrotation of Upper Leg is nan"),
        ({"rows": [[0] * 9], "time": "0"}, "Frame Time"),
        ({"rows": [[0] * 9], "time": "30"}, "Frame Time"),
        ({"rows": [[0] * 9], "time": "soon"}, "soon"),
        ({"rows": [[0] * 9], "leg": "2 Xrotation"}, "CHANNELS is malformed"),
        ({"rows": [[0] * 9], "leg": "1 Wrotation"}, "CHANNELS is malformed"),
    ],
)
def test_damaged_files_name_file_and_reason(tmp_path, settings, message):
    path = write(tmp_path, **settings)
    with pytest.raises(UserError, match=message) as caught:
        parse_bvh(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MOTION", "NOTION"),
        ("OFFSET 0 -4 0", "OFFSET 0 -4"),
        ("OFFSET 0 -4 0", ""),
        ("HIERARCHY", "}"),
        ("HIERARCHY", "HIERARCHY {"),
        ("HIERARCHY", "CHANNELS 1 Xrotation"),
        ("CHANNELS 3", "SPEED 3"),
    ],
)
def test_malformed_headers(tmp_path, old, new):
    path = write(tmp_path, [[0.0] * 9])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=r"clip\.bvh"):
        parse_bvh(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("OFFSET 0 -3 1", "OFFSET 0 -3 inf", "line 11: OFFSET 0 -3 inf"),
        ("OFFSET 0 0 9", "OFFSET 0 0 1e12", "line 14: OFFSET 0 0 1e12"),
        ("OFFSET 0 -4 0", "OFFSET 0 -4", "line 7: OFFSET needs three"),
        ("1 1\n", "1 1e300\n", r"line 22: yrotation of Upper Leg is 1e\+300"),
        ("3 3\n", "3 x\n", "line 26: .*damaged"),
        ("3 3\n", "3\n", "line 26: .*damaged"),
        ("\n3 3", "\n1e9 3", r"line 26: xposition of Hips is 1e\+09"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path, old, new, message):
    path = write(tmp_path, [[1] * 9, [2] * 9, [3] * 9])
    text = path.read_text().replace("\n3 3", "\n\n \n3 3")
    path.write_text(text)
    np.testing.assert_array_equal(parse_bvh(path).motion[:, 0], [1, 2, 3])
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        parse_bvh(path)


def test_blank_lines_take_linear_time(tmp_path):
    path = write(tmp_path, [[1.0] * 9] * 3)
    text = path.read_text()
    path.write_text(text.replace("MOTION", 300_000 * "\n" + "MOTION").replace("1.0\n", "1.0\n\n"))
    start = time.process_time()
    assert parse_bvh(path).motion.shape == (3, 9)
    assert time.process_time() - start < 5  # quadratic: minutes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Frames:\t1", "Frames:\t100000000", "too many to hold in memory"),
        ("JOINT Foot", 1000 * "JOINT x { OFFSET 0 0 0 } ", "line 9: .*more than 1000 joints"),
    ],
)
def test_sizes_are_bounded_before_memory_is_taken(tmp_path, old, new, message):
    path = write(tmp_path, [[0.0] * 9])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        parse_bvh(path)


def test_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        parse_bvh(tmp_path / "none.bvh")


@needs_mocap
def test_forward_kinematics_of_recorded_clips():
    golden = np.load(MOCAP_DIR / "joints_fk_check.npz")
    for path in sorted((MOCAP_DIR / "samples").glob("*.bvh")):
        bvh = parse_bvh(path)
        joints = [i for i, name in enumerate(bvh.joint_names) if not name.endswith("_end")]
        positions = bvh.global_positions()[:, joints]
        np.testing.assert_allclose(positions, golden[path.stem], atol=1e-3, rtol=0)
