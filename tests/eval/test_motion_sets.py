"""What generators make of a split, and what their codes keep of it."""

from dataclasses import replace

import pytest
import torch

from data_loaders.humanml import open_dataset
from data_loaders.skeleton import HUMANML
from eval import eval_tmr
from eval.motion_sets import (
    MotionSet,
    SampledOptions,
    coded_motions,
    generated_motions,
    joint_error,
    load_model,
    real_motions,
)
from prepare import synthetic
from tests.model.momask.tiny import write_folders
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.tmr.tiny import tiny_tmr
from utils.files import read_json


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("sets")
    synthetic.build(synthetic.Options(out=str(root / "data"), num_clips=60, captions_per_clip=1))
    write_folders(root / "momask", HUMANML)
    write_tiny_checkpoint(root / "mdm")
    tiny_tmr(features=263).save(root / "judge")
    return root


@pytest.fixture(scope="module")
def real(place) -> MotionSet:
    data = open_dataset("own", "train", str(place / "data"), random_items=False)
    return real_motions(data, 8)


def test_motions_of_whole_tokens_are_judged_without_the_frames_that_they_lack(place, real) -> None:
    options = SampledOptions(device="cpu", batch_size=4)
    tokens = load_model(str(place / "momask" / "base"), options, HUMANML)
    real = replace(real, lengths=real.lengths - 1)
    for made in (generated_motions(tokens, real, options, "x"), coded_motions(tokens, real, 4)):
        assert torch.equal(made.lengths, real.lengths // 4 * 4)
        ends = made.motions[torch.arange(len(made.lengths)), made.lengths - 1]
        assert (ends != 0).any(dim=1).all(), "the last frame is a frame"
        assert made.captions == real.captions


def test_the_code_of_a_model_of_motions_loses_nothing(place, real) -> None:
    options = SampledOptions(device="cpu")
    motions = load_model(str(place / "mdm" / "model000000007.pt"), options, HUMANML)
    coded = coded_motions(motions, real, 4)
    torch.testing.assert_close(coded.motions, real.motions, atol=1e-5, rtol=1e-5)
    assert joint_error(coded, real, HUMANML) < 1e-5


def test_joints_are_compared_in_metres_over_common_frames(real) -> None:
    joints = HUMANML.num_joints
    raised = real.motions.clone()
    raised[..., 3] += 0.25  # the height of the root alone; other joints have their own
    moved = replace(real, motions=raised, lengths=real.lengths - 1)
    assert joint_error(moved, real, HUMANML) == pytest.approx(0.25 / joints, rel=1e-4)
    longer = replace(HUMANML, units_per_metre=1000.0)
    assert joint_error(moved, real, longer) == pytest.approx(0.25e-3 / joints, rel=1e-4)


def test_codes_have_rows_of_their_own(place, tmp_path, monkeypatch, capsys) -> None:
    words = ["--dataset", "own", "--data_dir", str(place / "data"), "--device", "cpu"]
    words += ["--judge_path", str(place / "judge"), "--reward_path", str(place / "judge")]
    words += [
        "--model_path",
        str(place / "momask" / "base"),
        "--names",
        "tokens",
        "--split",
        "train",
    ]
    words += ["--reconstruct", "--output", str(tmp_path / "table.json")]
    monkeypatch.setattr("sys.argv", ["eval_tmr", *words])
    eval_tmr.main()
    rows = read_json(tmp_path / "table.json")["rows"]
    assert set(rows) == {"real", "tokens coded", "tokens"}
    assert rows["tokens coded"] != rows["tokens"] != rows["real"]
    printed = capsys.readouterr().out
    assert "tokens coded: joints " in printed
    assert "| tokens coded |" in printed
