"""AMC files through prepare.from_bvh, and frame rates that files do not say."""

import csv
from pathlib import Path

import numpy as np
import pytest

from prepare.bvh.clip import load_clip
from prepare.bvh.dataset import Options, build_dataset
from tests.data_loaders.asf_files import amc_text
from tests.prepare.cmu_files import perform, write_trial
from tests.prepare.rigs import bvh_text
from tests.train.scripts import run_main
from utils.errors import UserError


@pytest.fixture
def walks(tmp_path: Path) -> Path:
    """Trials of 60 and 120 frames per second that show the same three seconds, and captions."""
    for trial, fps in (("60_01", 60), ("07_01", 120), ("07_02", 120)):
        write_trial(tmp_path / "bvh", trial, perform(3.0, fps, spin=30.0))
    with open(tmp_path / "captions.csv", "w", newline="") as file:
        rows = [[trial, f"a person walks {trial}"] for trial in ("60_01", "07_01", "07_02")]
        csv.writer(file).writerows([["file", "caption"], *rows])
    return tmp_path


def test_amc_files_become_a_dataset(walks: Path) -> None:
    names = {"bvh_dir": "bvh", "captions": "captions.csv", "out": "out"}
    places = {option: str(walks / name) for option, name in names.items()}
    report = build_dataset(Options(**places, input_format="asf_amc", frame_rate="cmu", jobs=1))
    assert report.skipped == {}
    joints = [np.load(walks / "out" / "new_joints" / f"{n:06d}.npy") for n in range(3)]
    assert [len(motion) for motion in joints] == [59, 59, 59]
    np.testing.assert_allclose(joints[2], joints[0], atol=0.02)  # steps of integration differ


def test_the_frame_rate_is_what_the_user_says(walks: Path) -> None:
    path = walks / "bvh" / "subjects" / "07" / "07_01.amc"
    assert [len(load_clip(path, frame_rate=rate)) for rate in ("120", "60", "cmu")] == [60, 120, 60]
    (walks / "clip.bvh").write_text(bvh_text(frames=75, fps=30))
    lengths = [len(load_clip(walks / "clip.bvh", frame_rate=rate)) for rate in ("auto", "60")]
    assert lengths == [50, 25]


def test_metres_do_not_depend_on_the_length_of_legs(walks: Path) -> None:
    """The ASF file states its unit, so a child of half the size is not taken for an adult."""
    path = walks / "bvh" / "subjects" / "07" / "07_01.amc"
    adult = load_clip(path, frame_rate="120")
    skeleton = path.with_name("07.asf")
    skeleton.write_text(skeleton.read_text().replace("length 0.45", "length 0.9"))
    np.testing.assert_allclose(load_clip(path, frame_rate="120"), adult / 2, atol=1e-12)


def test_what_cannot_be_known_is_asked_for(walks: Path, capsys) -> None:
    places = ["--bvh_dir", "x", "--captions", "x", "--out", "x", "--input_format", "asf_amc"]
    for more, message in (
        ([], "AMC files do not say their frame rate; give --frame_rate 120"),
        (["--frame_rate", "fast"], "--frame_rate fast is unknown; give auto, cmu, or a positive"),
        (["--frame_rate", "-1"], "--frame_rate -1.0 is unknown"),
        (["--frame_rate", "120", "--unit", "cm"], "ASF files state their unit"),
    ):
        with pytest.raises(SystemExit):
            run_main("prepare.from_bvh", [*places, *more])
        assert message.replace("-1.0", "-1") in capsys.readouterr().err
    path = walks / "bvh" / "walk.amc"
    path.write_text(amc_text(perform(1.0, 120)))
    with pytest.raises(UserError, match=r"walk\.amc: an AMC file does not say its frame rate"):
        load_clip(path)
    with pytest.raises(UserError, match=r"walk\.amc: no trial of the CMU database is named so"):
        load_clip(path, frame_rate="cmu")
