"""The loop: schedule, resume, averages and refusals, on a linear regression."""

import json
from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from train.loop import (
    LoopOptions,
    StepResult,
    Trainer,
    WeightAverage,
    learning_rate,
    read_best,
    start_run,
)
from utils.errors import UserError
from utils.files import save_tensors


class Regression:
    """y = 2x with noise drawn from the step's generator."""

    def __init__(self, width: int = 1) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(width, 1), nn.Dropout(0.1))

    def batches(self, epoch: int) -> Iterator[torch.Tensor]:
        rng = torch.Generator().manual_seed(epoch)
        yield from torch.rand(4, 8, 1, generator=rng)

    def batches_per_epoch(self) -> int:
        return 4

    def step(self, batch, step, rng) -> StepResult:
        target = 2 * batch + 0.01 * torch.randn(batch.shape, generator=rng)
        loss = (self.module(batch) - target).square().mean()
        return StepResult(loss, {})

    def validate(self) -> dict[str, float]:
        self.module.eval()
        score = (self.module(torch.ones(1, 1)) - 2).abs().item()
        self.module.train()
        return {"score": score}

    def save(self, save_dir, step, average, best):
        path = save_dir / f"model{step:09d}.pt"
        save_tensors(path, self.module.state_dict())
        return path

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def options_for(folder, **changes) -> LoopOptions:
    return LoopOptions(
        save_dir=str(folder),
        device="cpu",
        lr=0.05,
        train_platform_type="NoPlatform",
        **{"num_steps": 30, "val_interval": 10, "save_interval": 15, **changes},
    )


def train(folder, **changes) -> Regression:
    task, options = Regression(), options_for(folder, **changes)
    accelerator = start_run(options)
    Trainer(task, options, accelerator).run()
    return task


def test_learns_logs_and_names_the_best(tmp_path) -> None:
    task = train(tmp_path / "run", num_steps=200)
    assert task.validate()["score"] < 0.5
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]
    assert losses[-1] < losses[0]
    best = read_best(tmp_path / "run")
    assert (tmp_path / "run" / best["path"]).is_file()


def test_a_resumed_run_equals_an_unbroken_one(tmp_path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", num_steps=15)
    parts = train(tmp_path / "parts", resume=True)
    for a, b in zip(whole.module.parameters(), parts.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_interrupted_run_leaves_no_superseded_checkpoint(tmp_path, monkeypatch) -> None:
    whole_step = Regression.step

    def interrupted(self, batch, step, rng):
        if step == 8:
            raise KeyboardInterrupt
        return whole_step(self, batch, step, rng)

    monkeypatch.setattr(Regression, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, val_interval=5)
    monkeypatch.setattr(Regression, "step", whole_step)
    train(tmp_path, val_interval=5, resume=True)
    kept = {path.name for path in tmp_path.glob("model*.pt")}
    asked = {"model000000015.pt", "model000000030.pt"}
    assert kept == asked | {read_best(tmp_path)["path"]}


def test_resume_needs_a_checkpoint_of_the_same_architecture(tmp_path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        train(tmp_path / "empty", resume=True)
    train(tmp_path / "run")
    options = options_for(tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="another architecture"):
        Trainer(Regression(width=2), options, start_run(options)).run()


def test_an_existing_folder_is_refused(tmp_path) -> None:
    train(tmp_path / "run")
    with pytest.raises(UserError, match="already holds files"):
        train(tmp_path / "run")


def test_a_diverged_loss_stops_with_advice(tmp_path) -> None:
    class Diverged(Regression):
        def step(self, batch, step, rng):
            return StepResult(self.module(batch).mean() * float("nan"), {})

    options = options_for(tmp_path)
    with pytest.raises(UserError, match="lower --lr"):
        Trainer(Diverged(), options, Accelerator(cpu=True)).run()


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({"lr_schedule": "constant"}, {0: 1.0, 99: 1.0}),
        ({"lr_schedule": "linear"}, {0: 1.0, 50: 0.5, 99: 0.01}),
        ({"lr_schedule": "cosine"}, {0: 1.0, 50: 0.5}),
        ({"warmup_steps": 10, "lr_schedule": "cosine"}, {0: 0.1, 9: 1.0, 55: 0.5}),
        ({"lr_anneal_steps": 200}, {0: 1.0, 100: 0.5}),
    ],
)
def test_learning_rates(changes, rates) -> None:
    options = LoopOptions(save_dir="x", lr=1.0, num_steps=100, **changes)
    for step, rate in rates.items():
        assert learning_rate(options, step) == pytest.approx(rate)


def test_weight_average_lags_behind_and_converges() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = WeightAverage(module, beta=0.9)
    nn.init.ones_(module.weight)
    values = []
    for _ in range(100):
        average.update(module)
        values.append(average.module.weight.item())
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1.0, abs=1e-3)
