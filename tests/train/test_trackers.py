"""Where figures go: the metrics file, and Accelerate's trackers."""

import sys
from types import ModuleType

import pytest
from accelerate.utils import LoggerType

from tests.train.regression import Regression, options_for, train
from tests.train.scripts import read_metrics
from train.loop import Trainer, start_run
from train.trackers import MetricsFile, tracker_of
from utils.errors import UserError


def test_tensorboard_has_the_figures_of_the_metrics_file(tmp_path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    train(tmp_path, train_platform_type="TensorboardPlatform")
    (folder,) = {path.parent for path in (tmp_path / "logs").rglob("events.*")}
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    for name in ("loss", "val/score"):
        logged = {event.step: event.value for event in events.Scalars(name)}
        lines = {line["step"]: line[name] for line in read_metrics(tmp_path) if name in line}
        assert logged == pytest.approx(lines)


RUNS = ("one", "two")


class Wandb(ModuleType):
    """The part of wandb that is used; remembers the calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started, self.logged, self.finished = [], [], 0

    def init(self, **settings) -> "Wandb":
        self.started.append(settings)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append({"step": step, **values})

    def finish(self) -> None:
        self.finished += 1


def test_weights_and_biases_has_a_run_for_each_of_two_stages(tmp_path, monkeypatch) -> None:
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("train.trackers.find_spec", lambda name: fake)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.WANDB])
    options = [options_for(tmp_path / n, train_platform_type="WandBPlatform") for n in RUNS]
    accelerator = start_run(options[0])
    for each in options:
        Trainer(Regression(each), each, accelerator).run()
    assert [run["name"] for run in fake.started] == list(RUNS)
    assert fake.started[0]["project"] == "sopo"
    assert fake.started[0]["dir"] == str(tmp_path / "one")
    assert fake.started[0]["config"]["lr"] == 0.05
    assert fake.finished == 2
    assert fake.logged == read_metrics(tmp_path / "one") + read_metrics(tmp_path / "two")


def test_a_missing_package_is_told_before_anything_starts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("train.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match="WandBPlatform needs the package wandb: pip install wandb"):
        train(tmp_path / "run", train_platform_type="WandBPlatform")
    assert not (tmp_path / "run").exists()
    assert tracker_of("NoPlatform") is None


def test_the_metrics_file_keeps_whole_lines_up_to_a_step(tmp_path) -> None:
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "loss": 1.0}', '{"step": 3}', "[1]", '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    MetricsFile(tmp_path, step=2).log(3, {"loss": 0.5})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    assert read_metrics(tmp_path)[-1] == {"step": 3, "loss": 0.5}
