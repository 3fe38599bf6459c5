"""HumanML3D's captions on 103 trials of CMU motion capture, where that test material is there."""

from pathlib import Path

import numpy as np
import pytest

from data_loaders.asf_amc import read_amc
from prepare.bvh.cmu_rates import native_fps
from prepare.cmu.build import build_dataset
from prepare.cmu.humanml import read_humanml
from prepare.cmu.trials import find_trials, load_trial
from prepare.cmu.verify import verify
from prepare.write_dataset import DatasetWriter
from tests.paths import needs_cmu
from tests.prepare.cmu_files import read_table, unpack_shared


@needs_cmu
def test_every_frame_rate_of_the_index() -> None:
    rows = read_table("index.csv")
    assert len(rows) == 2913
    assert {r["trial"] for r in rows if native_fps(r["trial"]) != int(r["native_fps"])} == set()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    unpack_shared(folder)
    return folder


@needs_cmu
def test_recorded_trials_are_bodies_on_a_floor(shared: Path) -> None:
    trials = find_trials(shared / "mocap")
    assert len(trials) == 103
    chosen = np.random.default_rng(0).choice(sorted(trials), 30, replace=False)
    assert sum(trials[trial].suffix == ".amc" for trial in chosen) > 5
    for trial in chosen:
        found = load_trial(trials[trial], native_fps(trial))
        assert np.isfinite(found.joints).all()
        feet = found.joints[:, [7, 8, 10, 11], 1].min(axis=1)
        assert abs(np.quantile(feet, 0.05)) < 0.1, trial
        if trials[trial].suffix == ".amc":
            amc = read_amc(trials[trial], native_fps(trial))
            ends = amc.global_positions()
            bones = ends[:, 1:] - ends[:, list(amc.skeleton.parents[1:])]
            assert np.ptp(np.linalg.norm(bones, axis=-1), axis=0).max() < 1e-6, trial


@needs_cmu
def test_captions_of_the_real_clips_fit_their_motions(shared: Path) -> None:
    mocap = shared / "mocap"
    humanml = read_humanml(str(shared / "humanml"))
    with DatasetWriter(shared / "out", info={"made_by": "a test"}) as writer:
        report = build_dataset(humanml, find_trials(mocap), mocap, writer, mirror=False, workers=1)
    assert report.clips == {"train": 117, "val": 10, "test": 15}
    assert report.captions == 425
    assert report.shorter == {}
    assert {reason: len(clips) for reason, clips in report.left_out.items()} == {
        "two people share the trial's name": 107,
        "no caption": 2664,
    }
    found = verify(shared / "out")
    least = {
        "climb": (24, 1.0),
        "run": (31, 31 / 33),
        "kick": (14, 14 / 16),
        "jump": (30, 30 / 34),
        "squat or bend": (14, 14 / 15),
        "spin or turn around": (27, 27 / 29),
    }
    assert [action.name for action in found.actions] == list(least)
    for action in found.actions:
        count, share = least[action.name]
        assert action.agree >= count
        assert action.agree / action.total >= share
        assert action.base < 0.4
    assert found.right
    assert found.trials.agree == found.trials.total >= 50
