"""ASF/AMC files against forward kinematics written from the format's definition."""

import math

import numpy as np
import pytest

from data_loaders.asf_amc import Amc, find_skeleton, parse_amc, parse_asf, read_amc
from tests.data_loaders.asf_files import ROOT_ORDER, Bone, amc_text, asf_text
from utils.errors import UserError

BONES = [
    Bone("hip", "root", (0.6, -0.8, 0.0), 2.0),
    Bone("thigh", "hip", (0.0, -1.0, 0.0), 7.5, "rx ry rz", (10.0, -20.0, 30.0)),
    Bone("shin", "thigh", (0.0, -0.6, 0.8), 7.0, "rx", (0.0, 0.0, 20.0), "ZYX"),
    Bone("foot", "shin", (0.0, 0.0, 1.0), 2.0, "rz rx", (-90.0, 7.0, 20.0), "YZX"),
    Bone("back", "root", (0.0, 1.0, 0.0), 4.0, "ry rx rz", (5.0, 6.0, 7.0), "XZY"),
    Bone("head", "back", (0.0, 0.8, 0.6), 1.5),
]
UNIT = 0.0254 / 0.45


def turn(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix for column vectors."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


def turns(axes: str, degrees: list[float]) -> np.ndarray:
    """One after the other about axes that stay where they are."""
    matrix = np.eye(3)
    for axis, angle in zip(axes, degrees, strict=True):
        matrix = turn(axis, angle) @ matrix
    return matrix


def ends(frame: dict[str, list[float]], order: str = ROOT_ORDER) -> dict[str, np.ndarray]:
    """Where every bone of BONES ends, in file units."""
    dofs = order.lower().split()
    root = dict(zip(dofs, frame["root"], strict=True))
    sequence = [dof for dof in dofs if dof.startswith("r")]
    rotations = {"root": turns("".join(d[1] for d in sequence), [root[d] for d in sequence])}
    places = {"root": np.array([root["tx"], root["ty"], root["tz"]])}
    for bone in BONES:
        frame_axes = turns(bone.order.lower(), list(bone.axis))
        own = turns(bone.dofs.replace("r", "").replace(" ", ""), frame.get(bone.name, []))
        local = frame_axes @ own @ np.linalg.inv(frame_axes)
        rotations[bone.name] = rotations[bone.parent] @ local
        along = rotations[bone.name] @ (bone.length * np.array(bone.direction))
        places[bone.name] = places[bone.parent] + along
    return places


def random_frames(count: int, seed: int = 0) -> list[dict[str, list[float]]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "root": [*rng.uniform(-20, 20, 3), *rng.uniform(-170, 170, 3)],
            **{b.name: list(rng.uniform(-170, 170, len(b.dofs.split()))) for b in BONES if b.dofs},
        }
        for _ in range(count)
    ]


def write(folder, asf: str | None = None, amc: str | None = None):
    (folder / "01.asf").write_text(asf_text(BONES) if asf is None else asf)
    path = folder / "01_02.amc"
    path.write_text(amc_text(random_frames(3)) if amc is None else amc)
    return path


def positions(amc: Amc) -> dict[str, np.ndarray]:
    return dict(zip(amc.joint_names, amc.global_positions().swapaxes(0, 1), strict=True))


def test_bones_end_where_the_definition_says(tmp_path) -> None:
    frames = random_frames(6)
    amc = read_amc(write(tmp_path, amc=amc_text(frames)), frame_rate=120)
    assert amc.frame_time == 1 / 120
    assert amc.joint_names[0] == "root"
    found = positions(amc)
    assert set(found) == {"root", *(bone.name for bone in BONES)}
    for number, frame in enumerate(frames):
        for name, place in ends(frame).items():
            np.testing.assert_allclose(found[name][number], place * UNIT, atol=1e-12)


@pytest.mark.parametrize("order", ["RZ RX RY TZ TX TY", "TX TY TZ RZ RY RX"])
def test_the_order_of_the_root_is_that_of_its_columns_and_turns(tmp_path, order: str) -> None:
    frames = random_frames(2)
    amc = read_amc(write(tmp_path, asf_text(BONES, root_order=order), amc_text(frames)), 60)
    for number, frame in enumerate(frames):
        for name, place in ends(frame, order).items():
            np.testing.assert_allclose(positions(amc)[name][number], place * UNIT, atol=1e-12)


def test_units_and_the_place_of_the_root(tmp_path) -> None:
    asf = asf_text(BONES, unit=1.0, position=(1.0, 2.0, 3.0))
    moved = read_amc(write(tmp_path, asf), 120).global_positions()
    plain = read_amc(write(tmp_path), 120).global_positions()
    np.testing.assert_allclose(moved, (plain / UNIT + [1.0, 2.0, 3.0]) * 0.0254, atol=1e-12)


def test_angles_in_radians(tmp_path) -> None:
    frames = random_frames(2)
    expected = read_amc(write(tmp_path, amc=amc_text(frames)), 120).global_positions()
    bones = [
        Bone(**(vars(bone) | {"axis": tuple(math.radians(a) for a in bone.axis)})) for bone in BONES
    ]
    radians = [
        {
            name: [*values[:3], *np.radians(values[3:])] if name == "root" else np.radians(values)
            for name, values in frame.items()
        }
        for frame in frames
    ]
    for header in (":RADIANS", ""):
        path = write(tmp_path, asf_text(bones, angle="rad"), amc_text(radians, header))
        np.testing.assert_allclose(read_amc(path, 120).global_positions(), expected, atol=1e-9)


def test_windows_line_ends_and_any_order_of_the_bones(tmp_path) -> None:
    frames = random_frames(2)
    expected = read_amc(write(tmp_path, amc=amc_text(frames)), 120).global_positions()
    shuffled = [dict(reversed(frame.items())) for frame in frames]
    path = write(tmp_path, amc=amc_text(shuffled))
    for file in (path, tmp_path / "01.asf"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(read_amc(path, 120).global_positions(), expected)


def test_every_subject_has_a_skeleton_of_its_own(tmp_path) -> None:
    for name in ("01.asf", "01_02.amc", "011.asf", "011_02.amc", "x_02.amc"):
        (tmp_path / name).touch()
    assert find_skeleton(tmp_path / "01_02.amc").name == "01.asf"
    assert find_skeleton(tmp_path / "011_02.amc").name == "011.asf"
    with pytest.raises(UserError, match=r"x_02\.amc: no skeleton beside it, looked for .*x\.asf"):
        find_skeleton(tmp_path / "x_02.amc")
    (tmp_path / "011.asf").unlink()
    assert find_skeleton(tmp_path / "x_02.amc").name == "01.asf", "the only one of the folder"


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read_amc(path, 120)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("length 0.45", "length 0", "line 6: 0 is not a positive number"),
        ("angle deg", "angle grad", "line 7: the angle unit 'grad' is neither"),
        ("angle deg", "", "line 4: the section has no 'angle'"),
        ("order TX TY TZ RX RY RZ", "order TX TY RX RY RZ", "line 11: order must name"),
        ("orientation 0 0 0", "orientation 0 90 0", "line 14: a root with an orientation"),
        ("direction 0.0 -1.0 0.0", "direction 0.0 -2.0 0.0", "line 26: the direction has not"),
        ("direction 0.0 -1.0 0.0", "direction 0.0 -1.0", "line 26: expected 3 finite numbers"),
        (
            "length 7.5",
            "length long",
            "line 27: expected a finite number up to 1e+06, found 'long'",
        ),
        ("20.0  ZYX", "20.0", "line 39: axis needs three angles and their order"),
        ("dof rx ry rz", "dof rx l", "line 29: dof must name rx, ry and rz"),
        ("name shin", "name thigh", "line 34: a second bone is named thigh"),
        ("  end\n:hierarchy", ":hierarchy", "the bone that begins here has no end"),
        ("hip thigh", "hip knee", "the bone 'knee' is not in :bonedata"),
        ("hip thigh", "hip", "the bone thigh does not hang on the root"),
        ("back head", "back head thigh", "the bone thigh has a second parent"),
        (":hierarchy", ":tree", "the file ends without :hierarchy"),
    ],
)
def test_malformed_skeletons_name_file_and_line(tmp_path, old, new, message) -> None:
    text = asf_text(BONES)
    assert old in text
    error = refusal(write(tmp_path, asf=text.replace(old, new, 1)))
    assert error.startswith(f"{tmp_path / '01.asf'}: line ")
    assert message in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:3], "line 3: the file ends without a frame"),
        (lambda lines: [*lines[:3], *lines[4:]], "line 4: expected the number of the first frame"),
        (lambda lines: [*lines[:6], *lines[7:]], "line 9: the frame before it has no shin"),
        (lambda lines: lines[:-1], "the frame before it has no back"),
        (lambda lines: [*lines[:9], *lines[15:]], "line 10: frame 3 follows 1"),
        (lambda lines: [*lines[:6], *lines[5:]], "line 7: thigh stands twice in one frame"),
        (lambda lines: [*lines[:6], "tail 1 2", *lines[6:]], "no degree of freedom in 'tail'"),
        (
            lambda lines: [*lines[:6], "shin 1 2", *lines[7:]],
            "line 7: shin needs 1 numbers, found 2",
        ),
        (lambda lines: [*lines[:6], "shin 9e99", *lines[7:]], "line 7: expected a finite number"),
        (lambda lines: [*lines[:6], "shin nan", *lines[7:]], "line 7: expected a finite number"),
        (lambda lines: [*lines[:6], "shin 1,5", *lines[7:]], "line 7: expected a finite number"),
    ],
)
def test_malformed_motions_name_file_and_line(tmp_path, change, message) -> None:
    lines = amc_text(random_frames(3)).splitlines()
    path = write(tmp_path, amc="\n".join(change(lines)))
    error = refusal(path)
    assert error.startswith(f"{path}: line ")
    assert message in error


def test_missing_files_are_told(tmp_path) -> None:
    skeleton = parse_asf(write(tmp_path).with_name("01.asf"))
    for parse in (parse_asf, lambda path: parse_amc(path, skeleton, 120)):
        with pytest.raises(UserError, match="cannot be read"):
            parse(tmp_path / "none")
