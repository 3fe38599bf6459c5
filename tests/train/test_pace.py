"""What a training tells before it starts, and once it knows its pace."""

import re
from types import SimpleNamespace

import pytest

from tests.train.regression import train
from train.pace import SMALL, Pace, announcement, estimate, first_checkpoint
from utils.places import PROJECT_ROOT


def plan(**changes) -> SimpleNamespace:
    numbers = {"num_steps": 600, "val_interval": 50, "save_interval": 200}
    return SimpleNamespace(save_dir="save/x", **{**numbers, **changes})


@pytest.mark.parametrize(
    ("step", "has_best", "changes", "expected"),
    [
        (0, False, {}, 50),
        (0, False, {"val_interval": 500}, 200),
        (0, False, {"num_steps": 30}, 30),
        (20, False, {}, 50),
        (50, True, {}, 200),
        (200, True, {}, 400),
        (450, True, {}, 600),
    ],
)
def test_the_first_checkpoint(step: int, has_best: bool, changes: dict, expected: int) -> None:
    assert first_checkpoint(plan(**changes), step, has_best) == expected


def test_steps_places_and_the_first_checkpoint_are_told_before_the_start(tmp_path, capsys) -> None:
    train(tmp_path / "run")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"30 steps; checkpoints go to {tmp_path / 'run'}, the first at step 10")
    train(tmp_path / "run", resume=True, num_steps=50)
    assert capsys.readouterr().out.startswith("20 steps after the 30 done; ")
    assert announcement(plan(), 600, 600) == "all 600 steps are done; a larger --num_steps goes on"


def test_the_pace_is_told_once_after_three_steps(tmp_path, capsys) -> None:
    shown = []
    train(tmp_path, before=lambda step: shown.append(capsys.readouterr().out))
    told = ["s per step" in text for text in shown]  # what came since the step before
    assert told.index(True) == 3
    assert sum(told) == 1


def test_the_estimate_leaves_the_first_step_out(monkeypatch) -> None:
    clock = iter((100.0, 104.0))  # after the first and the third step, whatever came before
    monkeypatch.setattr("train.pace.time.monotonic", lambda: next(clock))
    pace = Pace(plan(), 0, 50, "cuda")
    assert [pace.tell(step) for step in (1, 2)] == [[], []]
    (line,) = pace.tell(3)
    assert line.startswith("2 s per step: about 20 min of steps left")
    assert line.endswith("the first checkpoint in about 94 s")
    assert pace.tell(4) == []


def test_no_estimate_where_the_third_step_is_the_last() -> None:
    pace = Pace(plan(num_steps=3), 0, 3, "cpu")
    assert [pace.tell(step) for step in (1, 2, 3)] == [[], [], []]


def test_over_a_day_on_a_cpu_names_the_small_configurations() -> None:
    slow, steps = 200.0, plan()
    assert len(estimate(steps, 3, 50, slow, "cuda")) == 1
    assert len(estimate(steps, 3, 50, 100.0, "cpu")) == 1
    *_, warning = estimate(steps, 3, 50, slow, "cpu")
    assert re.match(r"warning: that is over a day on this CPU; .*--config", warning)
    assert SMALL in warning
    assert list(PROJECT_ROOT.glob(SMALL))
