"""The script: it trains, resumes as if never cut off, and refuses what has no gradient."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from model.momask.generator import MoMaskGenerator
from rewards.seam import differentiable
from tests.train.fakes import FirstFeature
from tests.train.scripts import Workspace, read_metrics, same_weights
from train import train_reward_backprop
from utils.errors import UserError

SCRIPT = "train_reward_backprop"


def refused(space: Workspace, save_dir: Path, capsys, *changes: str) -> str:
    """The one line that the script ends with."""
    with pytest.raises(SystemExit) as ended:
        space.run(SCRIPT, save_dir, *changes)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not save_dir.exists()
    return line


@pytest.mark.parametrize(
    "method", ["draft --backprop_steps 3", "refl --refl_range 4", "easytune --backprop_steps 3"]
)
def test_a_resumed_run_equals_an_unbroken_one(workspace, tmp_path, method: str) -> None:
    """Also where easytune was cut off within a batch, as after step 4 of batches of 3."""
    words = ["--method", *method.split(), "--num_steps"]
    workspace.run(SCRIPT, tmp_path / "whole", *words, "8")
    workspace.run(SCRIPT, tmp_path / "parts", *words, "4")
    workspace.run(SCRIPT, tmp_path / "parts", *words, "8", "--resume")
    name = "model000000008.pt"
    assert same_weights(tmp_path / "whole" / name, tmp_path / "parts" / name)
    assert not same_weights(tmp_path / "whole" / name, workspace.base)
    lines = [line for line in read_metrics(tmp_path / "whole") if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(line["loss"] == -line["reward"] for line in lines)
    assert lines[5:] == [line for line in read_metrics(tmp_path / "parts") if "loss" in line][5:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("--method refl --backprop_steps 3 --refl_range 4", "--backprop_steps 3"),
        ("--method refl --refl_range 9", "--refl_range 9 exceeds the 4 steps"),
        ("--backprop_steps 5", "--backprop_steps 5 exceeds the 4 steps"),
        ("--sampling_steps 9 --backprop_steps 1", "exceeds the 4 diffusion steps of this model"),
        ("--reward evaluator", "has no gradient"),
        ("--method dpo", "choose one of draft, refl, easytune"),
    ],
)
def test_what_cannot_be_had_is_refused(
    workspace, tmp_path, capsys, changes: str, message: str
) -> None:
    assert message in refused(workspace, tmp_path / "run", capsys, *changes.split())


def test_tokens_have_no_gradient(workspace, tmp_path, capsys, monkeypatch) -> None:
    tokens = MoMaskGenerator(model=None, parts=None, device="cpu")
    monkeypatch.setattr(train_reward_backprop, "load_generator", lambda *_, **__: tokens)
    line = refused(workspace, tmp_path / "run", capsys, "--backprop_steps", "1")
    assert "draws tokens, and a draw has no gradient" in line


def test_easytune_is_one_process(workspace, tmp_path, capsys, monkeypatch) -> None:
    several = SimpleNamespace(num_processes=2)
    monkeypatch.setattr(train_reward_backprop, "PartialState", lambda: several)
    words = ["--method", "easytune", "--backprop_steps", "2"]
    assert "start one process" in refused(workspace, tmp_path / "run", capsys, *words)


def test_a_reward_without_gradient_is_named() -> None:
    with pytest.raises(UserError, match="FirstFeature has no gradient"):
        differentiable(FirstFeature())
