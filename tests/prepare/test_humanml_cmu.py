"""HumanML3D's captions on CMU motion capture: on small files of our own, and on the real ones."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.asf_amc import read_amc
from data_loaders.bvh import Bvh, parse_bvh
from data_loaders.features import mirror_joints, process_joints
from data_loaders.humanml import open_dataset
from prepare.bvh.cmu_rates import native_fps, trial_name
from prepare.bvh.joint_maps import CMU_ASF, CMU_DAZ
from prepare.cmu.compare import aligned
from prepare.cmu.humanml import read_humanml
from prepare.cmu.trials import EASED_FRAMES, find_trials, load_trial, without_t_pose
from prepare.cmu.verify import verify
from tests.prepare.cmu_files import (
    Row,
    as_clone,
    as_zip,
    perform,
    write_humanml,
    write_trial,
)
from tests.prepare.rigs import bvh_text
from tests.tmr.tiny import tiny_tmr
from tests.train.scripts import run_main

ROWS = [
    Row("000010", "07_01", 0, 60, ("a person walks to the left",)),
    Row("000011", "60_01", 10, 60, ("a person turns clockwise", "a man spins"), ("own words",)),
    Row("000012", "07_01", 5, 70, ("a person walks on",), split="val"),
    Row("000013", "07_03", 0, 50, ("a person whose trial is not there",)),
    Row("000014", "07_01", 0, 50),
    Row("000015", "07_01", 200, 260, ("a person walks after the end",)),
    Row("000016", "20_01", 0, 50, ("two people meet",), folder="20_21_rory1"),
    Row("000017", "07_02", 0, 50, ("a person walks",), split="test"),
]
TRIALS = {
    "07_01": perform(3.5, 120, spin=-20.0),
    "60_01": perform(3.2, 60, spin=150.0),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Folders `mocap`, with two trials and a damaged one, and `humanml`."""
    folder = tmp_path_factory.mktemp("source")
    for trial, frames in TRIALS.items():
        write_trial(folder / "mocap", trial, frames)
    path = write_trial(folder / "mocap", "07_02", TRIALS["07_01"][:300])
    path.write_text(path.read_text().replace("ltibia", "tail", 1))
    write_humanml(folder / "humanml", ROWS)
    return folder


def build(source: Path, out: Path, *more: str, humanml: Path | None = None) -> dict:
    """The report of a dataset."""
    places = ["--mocap", str(source / "mocap"), "--humanml", str(humanml or source / "humanml")]
    run_main("prepare.humanml_cmu", [*places, "--out", str(out), "--jobs", "1", *more])
    return json.loads((out / "report.json").read_text())


def refusal(capsys, arguments: list[str]) -> str:
    """The one line with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run_main("prepare.humanml_cmu", arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def joints_at_20_fps(source: Path, trial: str, step: int) -> torch.Tensor:
    amc = read_amc(source / "mocap" / "subjects" / trial[:2] / f"{trial}.amc", 120)
    return torch.from_numpy(CMU_ASF.apply(amc.global_positions()[::step], amc.joint_names))


def test_clips_are_cut_as_humanml_cuts_them(source: Path, tmp_path) -> None:
    build(source, tmp_path / "out")
    for clip, trial, step, first, last in (
        ("000010", "07_01", 6, 0, 60),
        ("000011", "60_01", 3, 10, 60),
        ("000012", "07_01", 6, 5, 70),
    ):
        part = joints_at_20_fps(source, trial, step)[first:last]
        assert len(part) > 40
        for name, joints in ((clip, part), (f"M{clip}", mirror_joints(part))):
            found = np.load(tmp_path / "out" / "new_joint_vecs" / f"{name}.npy")
            np.testing.assert_allclose(found, process_joints(joints).features, atol=1e-6)


def test_names_splits_and_captions_are_those_of_humanml(source: Path, tmp_path) -> None:
    report = build(source, tmp_path / "out")
    out = tmp_path / "out"
    assert report["clips"] == {"train": 4, "val": 2, "test": 0}
    names = ["000010", "M000010", "000011", "M000011"]
    assert (out / "train.txt").read_text().split() == names
    own = "#own/NOUN tag/NOUN#0.0#0.0\n"
    texts = {name: (out / "texts" / f"{name}.txt").read_text() for name in names}
    assert texts["000010"] == f"a person walks to the left{own}"
    assert texts["M000010"].startswith("a person walks to the right#a/DET person/NOUN")
    assert texts["000011"] == f"a person turns clockwise{own}a man spins{own}"
    assert texts["M000011"] == f"own words{own}"
    data = open_dataset("own", "train", data_dir=str(out))
    assert sorted({entry.name for entry in data.entries}) == sorted(names)
    with open(out / "index.csv", newline="") as file:
        sources = {row["name"]: row["source"] for row in csv.DictReader(file)}
    assert sources["000012"] == "subjects/07/07_01.amc 5:70"


def test_what_is_missing_is_counted_and_named(source: Path, tmp_path, capsys) -> None:
    rows = [*ROWS, Row("000018", "07_01", 20, 90, ("a person walks past the end",))]
    humanml = write_humanml(tmp_path / "humanml", rows)
    with open(humanml / "texts" / "000010.txt", "a") as file:
        file.write("a person#without times\n")
    report = build(source, tmp_path / "out", "--mirror", "false", humanml=humanml)
    reasons = report["left_out"]
    assert reasons.pop("no file of the trial") == ["000013"]
    assert reasons.pop("no caption") == ["000014"]
    assert reasons.pop("two people share the trial's name") == ["000016"]
    assert {reason.partition(":")[0]: clips for reason, clips in reasons.items()} == {
        "07_01.amc 200": ["000015"],
        str(source / "mocap" / "subjects" / "07" / "07_02.amc"): ["000017"],
    }
    assert report["shorter"] == {"000018": 20}
    (line,) = report["unusable_lines"]
    assert line.startswith("000010 line 2: expected caption#tokens#from#to")
    assert report["files"] == {".amc": 2}
    assert report["captions"] == 5
    assert report["hours"] == pytest.approx((59 + 49 + 64 + 49) / 20 / 3600)
    output = capsys.readouterr().out
    assert "4 clips (train 3, val 1, test 0) from 2 .amc files" in output
    assert "1 clips left out: no file of the trial" in output
    assert "1 lines of caption files not usable" in output
    assert "clip 000018 is 20 poses shorter than in HumanML3D" in output


def test_a_clone_and_its_archive_read_the_same(source: Path, tmp_path) -> None:
    plain = read_humanml(str(source / "humanml"))
    clone = as_clone(source / "humanml", tmp_path / "clone")
    for path in (clone, as_zip(clone, tmp_path / "clone.zip")):
        found = read_humanml(str(path))
        assert (found.cuts, found.splits) == (plain.cuts, plain.splits)
        for clip in ("000011", "M000011", "000014"):
            assert found.text(clip) == plain.text(clip)
    assert [cut.whole for cut in plain.cuts[:4]] == [False, False, False, True]
    assert len(plain.cuts) == len(ROWS), "clips of other databases are not there"


def test_bvh_copies_stand_in_for_missing_files(source: Path, tmp_path) -> None:
    shutil.copytree(source / "mocap", tmp_path / "mocap")
    for trial in ("07_01", "60_02"):
        (tmp_path / "mocap" / f"{trial}.bvh").write_text(bvh_text(frames=301, fps=30))
    trials = find_trials(tmp_path / "mocap")
    assert trials["07_01"].suffix == ".amc", "the original is preferred"
    assert trials["60_02"].suffix == ".bvh"
    trial = load_trial(trials["60_02"], 60)
    assert trial.native_frames == 300, "its first pose has a root without turns"
    positions = parse_bvh(trials["60_02"]).global_positions()[1::3, 0] / 100
    np.testing.assert_allclose(trial.joints[:, 0], positions, atol=1e-9)


def bvh_of(names: tuple[str, ...], motion: np.ndarray) -> Bvh:
    place = ("xposition", "yposition", "zposition")
    turns = ("zrotation", "yrotation", "xrotation")
    channels = (place + turns, *[turns] * (len(names) - 1))
    parents = tuple(range(-1, len(names) - 1))
    return Bvh(names, parents, np.ones((len(names), 3)), channels, 1 / 120, motion)


def test_only_an_added_rest_pose_is_dropped() -> None:
    motion = np.random.default_rng(0).uniform(-90, 90, (20, 9))
    recorded = bvh_of(("Hips", "Spine"), motion)
    assert without_t_pose(recorded) is recorded
    motion = motion.copy()
    motion[0, 3:6] = 0.0
    np.testing.assert_array_equal(
        without_t_pose(bvh_of(("Hips", "Spine"), motion)).motion, motion[1:]
    )


def test_limbs_that_ease_out_of_the_rest_pose_are_held() -> None:
    names = tuple(sorted({joint for mix in CMU_DAZ.sources.values() for joint in mix}))
    motion = np.random.default_rng(0).uniform(-90, 90, (20, 3 + 3 * len(names)))
    motion[0, 3:6] = 0.0
    found = without_t_pose(bvh_of(names, motion)).motion
    np.testing.assert_array_equal(found[:, :6], motion[1:, :6])
    np.testing.assert_array_equal(found[EASED_FRAMES:], motion[1 + EASED_FRAMES :])
    assert (found[:EASED_FRAMES, 6:] == motion[1 + EASED_FRAMES, 6:]).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("index.csv", "source_path,start_frame\n", "index.csv lacks the column end_frame and"),
        ("index.csv", None, "has no index.csv; bring it with: bash prepare/download_humanml_"),
        ("val.txt", None, "has no val.txt"),
        ("texts", None, "has no texts.zip"),
        (
            "index.csv",
            "source_path,start_frame,end_frame,new_name\n./CMU/07/07_01_poses.npy,x,9,1.npy\n",
            "index.csv line 2: not a clip of a CMU trial",
        ),
    ],
)
def test_a_damaged_repository_is_told(source, tmp_path, capsys, name, content, message) -> None:
    humanml = tmp_path / "humanml"
    shutil.copytree(source / "humanml", humanml)
    if content is not None:
        (humanml / name).write_text(content)
    elif name == "texts":
        shutil.rmtree(humanml / name)
    else:
        (humanml / name).unlink()
    arguments = ["--mocap", str(source / "mocap"), "--humanml", str(humanml)]
    assert message in refusal(capsys, [*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_wrong_folders_and_options_are_told(source: Path, tmp_path, capsys) -> None:
    out, humanml = ["--out", str(tmp_path / "out")], ["--humanml", str(source / "humanml")]
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.zip").write_text("no archive")
    mocap = ["--mocap", str(source / "mocap")]
    for arguments, message in (
        (["--mocap", str(tmp_path / "no"), *humanml], "download_cmu.sh"),
        (["--mocap", str(tmp_path / "empty"), *humanml], "holds no trial such as 07_01.amc"),
        ([*mocap, "--humanml", str(tmp_path / "no.zip")], "no.zip cannot be read"),
        (mocap, "give --mocap and --humanml to make --out"),
        (["--verify", "--compare", "x"], "give one of them"),
        (["--verify", "--tmr_path", "x"], "--tmr_path belongs to --compare"),
        (["--verify"], "cuts.json does not exist"),
    ):
        assert message in refusal(capsys, [*arguments, *out])
    rows = [row for row in ROWS if row.clip in ("000013", "000014")]
    nothing = write_humanml(tmp_path / "nothing", rows)
    message = refusal(capsys, [*mocap, "--humanml", str(nothing), *out])
    assert "none of 2 clips can be made: 1 no file of the trial, 1 no caption" in message
    assert not (tmp_path / "out").exists()


# Verification

ACTIONS = {
    "runs": {"speed": 3.0},
    "walks": {"speed": 0.8},
    "spins": {"speed": 0.0, "spin": 120.0},
    "kicks": {"speed": 0.2, "kick": 80.0},
}


@pytest.fixture
def acted(tmp_path) -> Path:
    """Twelve trials of three seconds, and captions that say what happens in them."""
    rows = []
    for number in range(12):
        verb, settings = list(ACTIONS.items())[number % len(ACTIONS)]
        trial = f"08_{number + 1:02d}"
        write_trial(tmp_path / "mocap", trial, perform(3.0, 120, **settings))
        rows.append(Row(f"{number:06d}", trial, 0, 60, (f"a person {verb}",)))
    write_humanml(tmp_path / "humanml", rows)
    return tmp_path


def test_a_right_join_is_confirmed(acted: Path, capsys) -> None:
    build(acted, acted / "out")
    run_main("prepare.humanml_cmu", ["--out", str(acted / "out"), "--verify"])
    output = capsys.readouterr().out
    for row in ("run ", "kick ", "spin or turn around "):
        assert f"{row:20}       3 of 3   0.25" in output
    assert "whole trials             12 of 12" in output
    assert "not so in" not in output
    assert (acted / "out" / "verify.json").is_file()


def test_a_wrong_join_is_found(acted: Path, capsys) -> None:
    names = sorted(path.name for path in (acted / "humanml" / "texts").iterdir())
    texts = [(acted / "humanml" / "texts" / name).read_text() for name in names]
    for name, text in zip(names, texts[1:] + texts[:1], strict=True):
        (acted / "humanml" / "texts" / name).write_text(text)
    build(acted, acted / "out")
    with pytest.raises(SystemExit) as end:
        run_main("prepare.humanml_cmu", ["--out", str(acted / "out"), "--verify"])
    assert end.value.code == 1
    output = capsys.readouterr().out
    assert "run: not so in 000003: a person runs" in output
    assert "do NOT belong together" in output
    assert not (acted / "out" / "verify.json").exists()


def test_a_wrong_frame_rate_is_found(acted: Path, monkeypatch) -> None:
    monkeypatch.setattr("prepare.cmu.build.native_fps", lambda trial: 60)
    build(acted, acted / "out")
    found = verify(acted / "out")
    assert (found.trials.agree, found.trials.total) == (0, 12)
    assert not found.right


# Comparison


def test_alignment_undoes_a_turn_and_a_shift() -> None:
    rng = torch.Generator().manual_seed(0)
    target = torch.randn(9, 22, 3, generator=rng, dtype=torch.float64)
    cos, sin = np.cos(2.0), np.sin(2.0)
    turn = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    moved = target @ turn.T + torch.tensor([3.0, 0.0, -1.0])
    torch.testing.assert_close(aligned(moved, target), target)
    raised = aligned(moved + torch.tensor([0.0, 0.5, 0.0]), target)
    torch.testing.assert_close(raised[..., 1], target[..., 1] + 0.5)


def test_the_distance_to_another_version(acted: Path, tmp_path, capsys) -> None:
    build(acted, acted / "out")
    (acted / "out" / "test.txt").write_text("000000\n000001\n000002\n000003\n")
    shutil.copytree(acted / "out", tmp_path / "theirs")
    tiny_tmr(features=263).save(tmp_path / "tmr")
    for path in (tmp_path / "theirs" / "new_joint_vecs").glob("*.npy"):
        features = np.load(path)
        features[:, 3] += 0.02  # the root's height, which the other joints do not share
        np.save(path, features[:50])
    more = ["--compare", str(tmp_path / "theirs"), "--tmr_path", str(tmp_path / "tmr")]
    run_main("prepare.humanml_cmu", ["--out", str(acted / "out"), *more])
    output = capsys.readouterr().out
    assert "distance in cm, mean of 12 clips" in output
    assert f"{'pelvis':16} 2.0\n" in output
    assert f"{'left_wrist':16} 0.0\n" in output
    (root_height,) = [line for line in output.splitlines() if line.startswith("root_height")]
    assert float(root_height.split()[1]) > 0.05
    assert float(root_height.split()[2]) == pytest.approx(1.0, abs=0.001)
    assert "this to HumanML3D, 4" in output


def test_a_folder_without_common_clips_is_told(acted: Path, tmp_path, capsys) -> None:
    build(acted, acted / "out")
    message = refusal(capsys, ["--out", str(acted / "out"), "--compare", str(tmp_path)])
    assert "has no clip of" in message


def test_frame_rates() -> None:
    rates = {"60_01": 60, "62_25": 60, "62_26": 120, "74_09": 120, "89_01": 60, "07_01": 120}
    assert {trial: native_fps(trial) for trial in rates} == rates
    names = {"07_01": "07_01", "7_1": "07_01", "135_04": "135_04", "80_63_poses": "80_63"}
    assert {stem: trial_name(stem) for stem in names} == names
    assert trial_name("walk_01") is None
