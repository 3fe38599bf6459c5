"""A resumed run reads what it was begun with: the same content, wherever it lies."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.humanml import open_dataset
from rewards.functions import FunctionReward
from rewards.tmr import TMRReward
from rewards.weighted import WeightedReward
from tests.data_loaders.datasets import caption_line, write_dataset
from tests.tmr.tiny import tiny_tmr
from tests.train.regression import Regression, options_for
from tests.train.scripts import contents
from train.fingerprints import check_unchanged, fingerprints
from train.loop import Trainer, start_run
from utils.errors import UserError


def opened(folder: Path) -> dict[str, str]:
    return fingerprints(*(open_dataset("tiny", split, str(folder)) for split in ("train", "val")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", {"000000": 40, "000001": 44, "000002": 48})


def test_a_moved_dataset_is_the_same_packed_or_not(folder: Path) -> None:
    first = opened(folder)
    assert opened(folder) == first, "read from the packed file"
    moved = folder.rename(folder.with_name("moved"))
    assert opened(moved) == first
    (moved / "packed.safetensors").unlink()
    assert opened(moved) == first


def other_clip(folder: Path) -> None:
    motion = np.load(folder / "new_joint_vecs" / "000001.npy")
    motion[7, 3] += 1e-3
    np.save(folder / "new_joint_vecs" / "000001.npy", motion)


def other_caption(folder: Path) -> None:
    (folder / "texts" / "000001.txt").write_text(caption_line("a man jumps"), encoding="utf-8")


def other_split(folder: Path) -> None:
    (folder / "val.txt").write_text("000000\n", encoding="utf-8")


def other_statistics(folder: Path) -> None:
    np.save(folder / "Std.npy", np.full(263, 3.0, np.float32))


@pytest.mark.parametrize("change", [other_clip, other_caption, other_split, other_statistics])
def test_other_content_is_refused(folder: Path, change: Callable[[Path], None]) -> None:
    first = opened(folder)
    change(folder)
    with pytest.raises(UserError, match=r"the dataset \(--data_dir\) holds other clips") as refused:
        check_unchanged(first, opened(folder))
    assert "\n" not in str(refused.value)


def test_a_reward_is_known_by_weights_and_statistics() -> None:
    def judge(**changes: float) -> TMRReward:
        torch.manual_seed(3)
        model = tiny_tmr()
        for parameter in model.parameters():
            parameter.data += changes.get("weights", 0.0)
        model.stats.std.mul_(changes.get("std", 1.0))
        return TMRReward(model)

    feature = FunctionReward("jerk", lambda joints, caption, fps: 1.0, None)
    first = fingerprints(reward=judge())
    assert fingerprints(reward=judge()) == first
    both = WeightedReward([judge(), feature], [1.0, 1.0])
    others = [judge(weights=1e-6), judge(std=2.0), feature, both]
    found = [fingerprints(reward=other)["reward"] for other in others]
    assert len({first["reward"], *found}) == 5
    with pytest.raises(UserError, match=r"the reward \(--reward_path and the like\) holds other"):
        check_unchanged(first, fingerprints(reward=others[0]))


def test_the_loop_compares_before_it_writes(tmp_path: Path) -> None:
    def train(inputs: dict[str, str], **changes: object) -> None:
        options = options_for(tmp_path, **changes)
        Trainer(Regression(options), options, start_run(options), inputs=inputs).run()

    train({"dataset": "one"}, num_steps=15)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="than those that this run was begun with"):
        train({"dataset": "other"}, resume=True)
    assert contents(tmp_path) == before
    train({"dataset": "one", "reward": "new to this version"}, resume=True)


def test_tuning_goes_on_with_moved_files_and_with_no_others(workspace, tmp_path, capsys) -> None:
    run, arguments = tmp_path / "run", ["--tau", "0.5", "--val_interval", "2"]
    workspace.run("train_sopo", run, *arguments)
    moved = shutil.copytree(workspace.data, tmp_path / "moved")
    arguments += ["--data_dir", str(moved), "--resume"]
    workspace.run("train_sopo", run, *arguments, "--num_steps", "3")
    other = tmp_path / "reward"
    workspace.run("train_tmr", other, "--seed", "7")
    before = contents(run)
    assert "trained to step 3" in capsys.readouterr().out
    arguments += ["--reward_path", str(other), "--num_steps", "4"]
    with pytest.raises(SystemExit) as ended:
        workspace.run("train_sopo", run, *arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "the reward (--reward_path and the like) holds other weights" in line
    assert contents(run) == before
