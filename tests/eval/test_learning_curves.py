"""Smoothing, seeds and missing figures of the learning curves."""

import json
import sys

import numpy as np
import pytest

from eval import learning_curves as script
from eval.learning_curves import (
    Options,
    average_seeds,
    collect,
    draw,
    read_run,
    run_names,
    running_mean,
)
from utils.errors import UserError


def write_run(folder, **figures: dict[int, float]):
    """A run that logged `figures` by step; ``__`` in a name stands for ``/``."""
    folder.mkdir(parents=True)
    lines = [
        {"step": step, name.replace("__", "/"): value}
        for name, series in figures.items()
        for step, value in series.items()
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_running_mean_is_centred() -> None:
    spike = np.array([0.0, 0.0, 0.0, 6.0, 0.0, 0.0, 0.0])
    assert running_mean(spike, 3).tolist() == [0, 0, 2, 2, 2, 0, 0]
    assert running_mean(spike, 1).tolist() == spike.tolist()


def test_running_mean_keeps_a_line_up_to_both_ends() -> None:
    line = np.arange(10.0)
    np.testing.assert_allclose(running_mean(line, 7), line)
    np.testing.assert_allclose(running_mean(line, 99), line)


def test_band_is_of_smoothed_seeds_at_common_steps() -> None:
    seeds = [{1: 0.0, 2: 3.0, 3: 0.0}, {1: 2.0, 2: 5.0, 3: 5.0, 4: 9.0}]
    curve = average_seeds(seeds, 3)
    assert curve.seeds == 2
    assert curve.steps.tolist() == [1, 2, 3]
    assert curve.low.tolist() == [0, 1, 0]
    assert curve.high.tolist() == [2, 4, 5]
    assert curve.mean.tolist() == [1, 2.5, 2.5]


def test_a_step_logged_again_after_a_resume_counts_once(tmp_path) -> None:
    run = write_run(tmp_path / "run", loss={10: 1.0, 20: 2.0})
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "loss": 3.0}\n{"step": 20, "val/score": 0.5}\n')
    assert read_run(run) == {"loss": {10: 1.0, 20: 3.0}, "val/score": {20: 0.5}}


def test_a_damaged_line_is_named(tmp_path) -> None:
    run = write_run(tmp_path / "run", loss={10: 1.0})
    for damage in ('{"step": 20, "lo', '{"loss": 1.0}', "[1]", '{"step": 3, "loss": null}'):
        (tmp_path / "run" / "metrics.jsonl").write_text(f'{{"step": 1, "loss": 1}}\n{damage}\n')
        with pytest.raises(UserError, match="line 2 is no logged step"):
            read_run(run)
    with pytest.raises(UserError, match="does not exist; --runs takes folders"):
        read_run(tmp_path)


def test_folders_of_a_sweep_are_seeds_of_one_row(tmp_path) -> None:
    folders = [f"out/{name}" for name in ("sopo_seed1", "sopo_seed12", "sft_seed1", "seed_3")]
    assert run_names(Options(runs=folders)) == ["sopo", "sopo", "sft", "seed_3"]
    assert run_names(Options(runs=folders[:1], names=["mine"])) == ["mine"]


def test_a_value_that_some_runs_lack_leaves_them_out_of_its_panel(tmp_path) -> None:
    sopo = [
        write_run(tmp_path / f"sopo_seed{i}", loss={1: i}, rewards__margins={1: 2 * i})
        for i in (1, 2)
    ]
    sft = write_run(tmp_path / "sft_seed1", loss={1: 5.0})
    chosen = Options(runs=[*sopo, sft], values=["loss", "rewards/margins"])
    panels = collect(chosen)
    assert {value: list(curves) for value, curves in panels.items()} == {
        "loss": ["sopo", "sft"],
        "rewards/margins": ["sopo"],
    }
    assert panels["rewards/margins"]["sopo"].mean.tolist() == [3]
    chosen.values = ["rewards/margins", "gate/tau"]
    with pytest.raises(UserError, match="no run logged gate/tau; there are: loss, rewards/margins"):
        collect(chosen)


def test_defaults_suit_the_runs(tmp_path) -> None:
    base = write_run(tmp_path / "base", loss={1: 1.0}, val__score={1: 0.3})
    tuned = write_run(
        tmp_path / "sopo", val__score={1: 0.1}, errors__loser_difference={1: 0.2}, lr={1: 1.0}
    )
    bare = write_run(tmp_path / "bare", loss={1: 1.0})
    assert list(collect(Options(runs=[base]))) == ["val/score"]
    assert list(collect(Options(runs=[base, tuned]))) == ["errors/loser_difference"]
    with pytest.raises(UserError, match="choose --values from: loss"):
        collect(Options(runs=[bare]))


def test_figures_of_the_val_split_are_not_smoothed(tmp_path) -> None:
    series = {1: 0.0, 2: 3.0, 3: 0.0}
    run = write_run(tmp_path / "run", val__score=series, loss=series)
    panels = collect(Options(runs=[run], values=["val/score", "loss"], window=3))
    assert panels["val/score"]["run"].mean.tolist() == [0, 3, 0]
    assert panels["loss"]["run"].mean.tolist() == [0, 1, 0]


def test_seeds_without_a_common_step_are_refused(tmp_path) -> None:
    runs = [write_run(tmp_path / f"a_seed{i}", loss={i: 1.0}) for i in (1, 2)]
    with pytest.raises(UserError, match="a, loss: the runs have no logged step in common"):
        collect(Options(runs=runs, values=["loss"]))


def test_the_command_draws_and_tells_who_is_missing(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("matplotlib")
    steps = range(1, 5)
    values = {"rewards__margins": dict.fromkeys(steps, 1.0), "gate__share_below_tau": {1: 0.5}}
    runs = [write_run(tmp_path / f"sopo_seed{i}", **values) for i in (1, 2)]
    runs.append(write_run(tmp_path / "sft", loss={1: 1.0}))
    output = tmp_path / "figures" / "curves.png"
    words = ["learning_curves", "--runs", *runs, "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    assert output.read_bytes().startswith(b"\x89PNG")
    assert "sft logged none of gate/share_below_tau, rewards/margins" in capsys.readouterr().out


def test_every_number_of_panels_fits_the_grid(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    curve = average_seeds([{1: 0.0, 2: 1.0}, {1: 1.0, 2: 2.0}], 1)
    for count in (1, 3, 4):
        path = tmp_path / f"{count}.svg"
        draw({f"value {i}": {"a": curve} for i in range(count)}, 1, path)
        text = path.read_text()
        assert text.count('id="axes_') == count
        assert text.count('id="legend_') == 1


def test_missing_matplotlib_names_the_extra(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sys, "argv", ["x", "--runs", "a", "--output", str(tmp_path / "a.png")])
    with pytest.raises(SystemExit):
        script.main()
    assert r"'.[vis]'" in capsys.readouterr().err


def test_options_that_cannot_be_drawn_are_refused() -> None:
    for changes, message in (
        ({"names": ["a"]}, "1 names for 2 runs"),
        ({"window": 4}, "use an odd number"),
        ({"output": "curves.txt"}, "must end in .png"),
    ):
        with pytest.raises(UserError, match=message):
            Options(**({"runs": ["a", "b"], "output": "c.png"} | changes)).validate()
