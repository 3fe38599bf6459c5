"""The loop: schedule, averages, what is logged and saved, and what never is."""

import math

import pytest
import torch
from torch import nn

from tests.train.regression import Regression, options_for, train
from tests.train.scripts import contents, read_metrics
from train.loop import Trainer, start_run
from train.optimisation import WeightAverage, learning_rate
from train.task import LoopOptions, StepResult
from utils.errors import UserError
from utils.files import load_tensors, read_json


def test_learns_logs_and_names_the_best(tmp_path) -> None:
    task = train(tmp_path / "run", num_steps=200)
    assert task.validate()["score"] < 0.5
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert losses[-1] < losses[0]
    best = read_json(tmp_path / "run" / "best.json")
    assert (tmp_path / "run" / best["path"]).is_file()


def test_the_task_names_what_the_progress_bar_shows(tmp_path, capsys) -> None:
    train(tmp_path)
    shown = capsys.readouterr().err.splitlines()[-1]
    assert "loss=" in shown
    assert "slope=" in shown


def test_an_existing_folder_is_refused_and_left_alone(tmp_path) -> None:
    train(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="already holds files"):
        train(tmp_path)
    assert contents(tmp_path) == before


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(tmp_path) -> None:
    class Unfit(Regression):
        def __init__(self, *arguments) -> None:
            raise UserError("the data do not fit")

    with pytest.raises(UserError, match="do not fit"):
        train(tmp_path / "save" / "run", Unfit)
    assert not (tmp_path / "save").exists()


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_diverged_loss_stops_with_advice_and_keeps_the_weights(tmp_path, factor) -> None:
    class Diverged(Regression):
        def step(self, batch, step, rng):
            return StepResult(self.module(batch).mean() * factor, {})

    options = options_for(tmp_path)
    task = Diverged(options)
    before = [parameter.clone() for parameter in task.module.parameters()]
    with pytest.raises(
        UserError, match=r"loss of step 3 is (nan|inf|-inf), .*left out and so were 2"
    ):
        Trainer(task, options, start_run(options)).run()
    assert all(map(torch.equal, before, task.module.parameters()))
    assert not list(tmp_path.glob("*.pt"))


def test_a_gradient_that_is_no_number_is_never_applied(tmp_path) -> None:
    class Sharp(Regression):
        """From step 12 on the loss is 0 and its gradient, that of a root there, infinite."""

        def step(self, batch, step, rng):
            if step < 11:
                return super().step(batch, step, rng)
            return StepResult((self.module(batch) * 0).abs().sum().sqrt(), {})

    with pytest.raises(UserError, match=r"loss of step 14 is 0, its gradient norm nan"):
        train(tmp_path, Sharp, val_interval=10)
    state = load_tensors(tmp_path / "resume.pt")
    assert state["step"] == 10
    assert all(value.isfinite().all() for value in state["module"].values())


def test_a_rare_bad_step_is_left_out_and_counted(tmp_path, capsys) -> None:
    class Hiccup(Regression):
        def step(self, batch, step, rng):
            result = super().step(batch, step, rng)
            return StepResult(result.loss * (math.nan if step in (6, 9, 14) else 1), {})

    train(tmp_path, Hiccup)
    assert "loss of step 7 is nan, its gradient norm nan; the step is left out" in (
        capsys.readouterr().out
    )
    lines = read_metrics(tmp_path)
    assert [line["bad_steps"] for line in lines if "bad_steps" in line] == [2, 3, 3, 3, 3]
    assert [line["step"] for line in lines if "loss" in line] == [1, 5, 20, 25, 30]
    state = load_tensors(tmp_path / "resume.pt")
    assert state["optimizer"]["state"][0]["step"] == 27


@pytest.mark.parametrize("steps", [2, 30])
def test_a_finite_loss_that_has_diverged_fails(tmp_path, steps) -> None:
    class Named(list):
        names = ("000001", "000002")

    class Batches(Regression):
        def batches(self, epoch):
            for batch in super().batches(epoch):
                yield Named([batch])

        def step(self, batch, step, rng):
            return super().step(batch[0], step, rng)

    with pytest.raises(UserError, match=r"\(clips 000001, 000002\): it was left out.*diverged"):
        train(tmp_path, Batches, num_steps=steps, lr=1e6)
    assert not list(tmp_path.glob("*.pt"))


def test_a_state_that_is_not_finite_is_never_written(tmp_path) -> None:
    train(tmp_path, num_steps=15)
    before = contents(tmp_path)["resume.pt"]

    class Memory(Regression):
        def state_dict(self):
            return {"seen": torch.tensor([math.inf])}

    with pytest.raises(UserError, match=r"state tasks/0/seen is not finite and was not saved"):
        train(tmp_path, Memory, resume=True)
    assert contents(tmp_path)["resume.pt"] == before


def test_weights_that_are_no_numbers_are_never_saved(tmp_path) -> None:
    task = None

    class Broken(Regression):
        def validate(self):
            nonlocal task
            task = self
            with torch.no_grad():
                self.module[0].bias.fill_(math.nan)
            return {"score": 0.0}

    with pytest.raises(UserError, match=r"weights 0\.bias are not finite and were not saved"):
        train(tmp_path, Broken)
    assert not list(tmp_path.glob("*.pt"))


def test_a_score_that_is_no_number_is_never_the_best(tmp_path, capsys) -> None:
    class Unsure(Regression):
        def validate(self):
            scores = iter((math.nan, 3.0, -math.inf))
            self.scores = getattr(self, "scores", scores)
            return {"score": next(self.scores)}

    train(tmp_path, Unsure)
    assert read_json(tmp_path / "best.json")["step"] == 20
    assert capsys.readouterr().out.count("is not kept as the best") == 2


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


def test_halves_of_a_batch_add_up_to_its_step(tmp_path) -> None:
    whole = torch.rand(8, 1, generator=torch.Generator().manual_seed(0))

    class Exact(Regression):
        def batches(self, epoch):
            yield from whole.chunk(self.options.accumulate)

        def batches_per_epoch(self):
            return self.options.accumulate

        def step(self, batch, step, rng):
            loss = (self.module[0](batch) - 2 * batch).square().mean()
            return StepResult(loss, {"mean": batch.mean()})

    runs = {n: train(tmp_path / str(n), Exact, num_steps=3, accumulate=n) for n in (1, 2)}
    torch.testing.assert_close(runs[1].module.state_dict(), runs[2].module.state_dict())
    lines = [read_metrics(tmp_path / str(n))[0] for n in runs]
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"])
    assert lines[0]["mean"] == pytest.approx(lines[1]["mean"])
