import numpy as np
import pytest

from data_loaders.skeleton import HUMANML
from prepare.bvh.joint_maps import BUILT_IN, choose_joint_map, load_joint_map
from tests.paths import ROOT
from utils.errors import UserError


@pytest.mark.parametrize("joint_map", BUILT_IN, ids=lambda joint_map: joint_map.name)
def test_every_built_in_map_is_chosen_for_its_own_joints(joint_map):
    names = sorted({name for mix in joint_map.sources.values() for name in mix})
    assert choose_joint_map([*names, "Extra"]) is joint_map
    assert list(joint_map.sources) == list(HUMANML.joint_names)
    for target, mix in joint_map.sources.items():
        assert sum(mix.values()) == pytest.approx(1)
        swapped = HUMANML.joint_names[HUMANML.mirror[HUMANML.joint_names.index(target)]]
        if swapped != target:
            assert joint_map.sources[swapped] != mix


def test_a_mix_averages_positions(tmp_path):
    lines = [f"{target}: Hips" for target in HUMANML.joint_names]
    lines[9] = "spine3: {Hips: 0.25, Top: 0.75}"
    path = tmp_path / "map.yaml"
    path.write_text("\n".join(lines))
    positions = np.array([[[0.0, 0, 0], [4, 8, 0]]])
    joints = load_joint_map(path).apply(positions, ["Hips", "Top"])
    np.testing.assert_allclose(joints[0, 9], [3, 6, 0])
    np.testing.assert_array_equal(joints[0, 8], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("pelvis: Hips", ""), "misses: pelvis"),
        (("pelvis: Hips", "pelvis: Hips\ntail: Hips"), "unknown joints: tail"),
        (("pelvis: Hips", "pelvis: {Hips: 0.4}"), "sum to 0.4"),
        (("pelvis: Hips", "pelvis: {Hips: much}"), "numbers"),
        (("pelvis: Hips", "pelvis: [Hips]"), "mix such as"),
        (("pelvis: Hips", "pelvis: {"), "not valid YAML"),
        (("pelvis: Hips", "pelvis: {Hips: .nan}"), "between 0 and 1"),
        (("pelvis: Hips", "pelvis: {Hips: 2, Top: -1}"), "between 0 and 1"),
        (("pelvis: Hips", "pelvis: " + 2000 * "["), "not valid YAML"),
        (("pelvis: Hips", "pelvis: Hips" + 2**18 * " "), "more than 262144 bytes"),
    ],
)
def test_joint_map_files_are_checked(tmp_path, change, message):
    path = tmp_path / "map.yaml"
    text = "\n".join(f"{target}: Hips" for target in HUMANML.joint_names)
    path.write_text(text.replace(*change))
    with pytest.raises(UserError, match=message):
        load_joint_map(path)


def test_every_built_in_map_is_documented():
    page = (ROOT / "docs" / "bvh.md").read_text(encoding="utf-8")
    assert all(f"`{joint_map.name}`" in page for joint_map in BUILT_IN)


def test_unknown_joints_are_listed():
    with pytest.raises(UserError, match=r"--joint_map.*Joints of the file: Hips, Thigh"):
        choose_joint_map(["Hips", "Thigh"])


def test_absent_joints_are_told_with_those_of_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(f"{target}: Hips" for target in HUMANML.joint_names[:-1]))
    with open(path, "a") as file:
        file.write("\nright_wrist: Hand_R\n")
    joint_map = load_joint_map(path)
    assert joint_map.missing(["Hips"]) == ["Hand_R"]
    with pytest.raises(UserError, match=r"mine\.yaml names Hand_R.*Joints of the file: Hips, Top"):
        joint_map.apply(np.zeros((2, 2, 3)), ["Hips", "Top"])
    assert joint_map.apply(np.ones((2, 2, 3)), ["rig:Hips", "rig:Hand_R"]).shape == (2, 22, 3)
