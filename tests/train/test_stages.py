"""Stages run as real processes: of a script that tells when it ran, and with what environment."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from train.stages import (
    Command,
    Stage,
    StageRunner,
    go_on,
    is_stale,
    reason,
)
from train.train_sopo import Options
from utils.cores import usable_cores
from utils.files import read_json, write_json

PROBE = """
import os, sys, time
folder, name, action = sys.argv[1:]
def note(event):
    with open(os.path.join(folder, "events"), "a") as file:
        file.write(f"{event} {name} {os.getpid()}\\n")
note("start")
print(os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS"))
if action == "fail":
    sys.exit("the reason")
if action == "sleep":
    time.sleep(60)
if action.startswith("meet"):  # wait until the other one has started as well
    for _ in range(500):
        if f"start {action[4:]} " in open(os.path.join(folder, "events")).read():
            break
        time.sleep(0.02)
    else:
        sys.exit("alone")
open(os.path.join(folder, name), "w").close()
note("end")
"""


@pytest.fixture
def probe(tmp_path, monkeypatch):
    (tmp_path / "probe.py").write_text(PROBE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def stage(name: str, action: str = "go", after: str = "") -> Stage:
        words = ["probe", str(tmp_path), name, action]
        return Stage(name, tmp_path / name, words, after=frozenset(after))

    return stage


def make_runner(folder: Path, jobs: int = 1, gpus: tuple[str, ...] = ()) -> StageRunner:
    runner = StageRunner(folder, jobs)
    runner.gpus = list(gpus)
    return runner


def events(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "events").read_text().splitlines()
    return [(event, name) for event, name, _ in map(str.split, lines)]


def test_one_at_a_time_in_order_and_what_is_done_is_left_alone(probe, tmp_path) -> None:
    (tmp_path / "b").touch()
    assert make_runner(tmp_path).run([probe("a"), probe("b"), probe("c")]) == []
    assert events(tmp_path) == [("start", "a"), ("end", "a"), ("start", "c"), ("end", "c")]


def test_a_stale_product_is_made_again(probe, tmp_path) -> None:
    (tmp_path / "a").touch()
    fresh = probe("a")
    assert fresh.done
    make_runner(tmp_path).run([Stage("a", fresh.product, fresh.arguments, stale=True)])
    assert events(tmp_path) == [("start", "a"), ("end", "a")]


def test_in_a_chain_nothing_starts_after_a_failure(probe, tmp_path) -> None:
    stages = [probe("a"), probe("b", "fail"), probe("c")]
    failed = make_runner(tmp_path).run(stages, chained=True)
    assert [stage.title for stage in failed] == ["b"]
    assert [name for event, name in events(tmp_path) if event == "start"] == ["a", "b"]


def test_a_failure_is_told_in_one_line_and_stops_no_other(probe, tmp_path, capsys) -> None:
    failed = make_runner(tmp_path).run([probe("a", "fail"), probe("b")])
    assert [stage.title for stage in failed] == ["a"]
    assert (tmp_path / "b").is_file()
    lines = capsys.readouterr().out.splitlines()
    log = tmp_path / "logs" / "a.log"
    assert f"a failed ({log}): the reason" in lines
    assert f"    {probe('a', 'fail').command}" in lines, "echoed before it runs"
    assert log.read_text().splitlines()[-1] == "the reason"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("train:  50%|##   | 1/2 [00:00<00:00]error: no luck\ntrain:  50%|##", "error: no luck"),
        ("Traceback\n  raise\nValueError: odd shape\n", "ValueError: odd shape"),
        ("loading\nKilled\n\n", "Killed"),
        ("\n", "no output"),
    ],
)
def test_the_reason_of_a_failure_is_found_beside_progress_bars(output, expected) -> None:
    assert reason(output) == expected


def test_jobs_run_side_by_side_each_with_a_gpu_of_its_own(probe, tmp_path) -> None:
    runner = make_runner(tmp_path, jobs=2, gpus=("3", "5"))
    assert runner.run([probe("a", "meetb"), probe("b", "meeta"), probe("c")]) == []
    words = [(tmp_path / "logs" / f"{name}.log").read_text().splitlines()[1] for name in "abc"]
    threads = str(max(1, usable_cores() // 2))
    assert words[:2] == [f"3 {threads}", f"5 {threads}"]
    assert words[2].split()[0] in ("3", "5")


def test_stages_wait_for_those_before_them_and_share_cores_with_the_others(probe, tmp_path) -> None:
    stages = [
        probe("a"),
        probe("b", "meetc", "a"),
        probe("c", "meetb", "a"),
        probe("d", "go", "abc"),
    ]
    assert make_runner(tmp_path, jobs=2).run(stages, chained=True) == []
    order = [(event, name) for event, name in events(tmp_path) if name in "ad"]
    assert events(tmp_path)[:2] == order[:2] == [("start", "a"), ("end", "a")]
    assert events(tmp_path)[-2:] == order[2:] == [("start", "d"), ("end", "d")]
    words = [(tmp_path / "logs" / f"{name}.log").read_text().split()[-1] for name in "abcd"]
    half = str(max(1, usable_cores() // 2))
    assert words == ["None", half, half, "None"], "a stage that runs alone may use all cores"


def test_what_waits_for_a_failed_stage_never_starts(probe, tmp_path) -> None:
    stages = [probe("a", "fail"), probe("b", "go", "a"), probe("c")]
    failed = make_runner(tmp_path, jobs=2).run(stages, chained=True)
    assert [stage.title for stage in failed] == ["a"]
    assert "b" not in {name for _, name in events(tmp_path)}


def test_no_more_than_jobs_run_at_once(probe, tmp_path) -> None:
    make_runner(tmp_path, jobs=2).run([probe(name) for name in "abcde"])
    running = peak = 0
    for event, _ in events(tmp_path):
        running += 1 if event == "start" else -1
        peak = max(peak, running)
    assert (running, peak <= 2) == (0, True)


def test_an_interruption_stops_the_running_stages(probe, tmp_path, monkeypatch) -> None:
    def interrupt(seconds: float) -> None:
        if (tmp_path / "events").is_file() and len(events(tmp_path)) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("train.stages.time.sleep", interrupt)
    runner = make_runner(tmp_path, jobs=2)
    with pytest.raises(KeyboardInterrupt):
        runner.run([probe("a", "sleep"), probe("b", "sleep"), probe("c")])
    for line in (tmp_path / "events").read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[-1]), 0)
    assert read_json(tmp_path / "seconds.json").keys() == {"a", "b"}


def test_seconds_add_up_over_starts(probe, tmp_path) -> None:
    write_json(tmp_path / "seconds.json", {"a": 100.0})
    make_runner(tmp_path).run([probe("a")])
    assert 100 < read_json(tmp_path / "seconds.json")["a"] < 110


def test_the_estimate_goes_by_kind_and_falls_back_on_the_mean(tmp_path) -> None:
    def stage(title: str) -> Stage:
        return Stage(title, tmp_path / title, [], kind=title[:-1])

    runner = make_runner(tmp_path)
    runner.seconds = {"sft1": 10.0, "sft2": 20.0, "sopo1": 90.0, "sopo2": 5.0}
    finished = [stage("sft1"), stage("sft2"), stage("sopo1")]  # sopo2 was cut off
    assert runner.remaining(finished, [stage("sopo2"), stage("sft3")]) == 90 + 15
    assert runner.remaining(finished, [stage("dsopo1")]) == 40
    assert runner.remaining([], [stage("sft3")]) is None
    runner.jobs = 2
    assert runner.remaining(finished, [stage("sopo2"), stage("sopo3"), stage("sopo4")]) == 180
    later = replace(stage("sopo4"), after=frozenset({"sopo2"}))
    assert runner.remaining(finished, [stage("sft3"), stage("sopo2"), later]) == 180
    assert runner.remaining(finished, [stage("sopo2")]) == 90, "one run does not get faster"


def test_what_is_known_beforehand_counts_until_something_alike_was_measured(
    tmp_path, capsys
) -> None:
    def stage(title: str, minutes: float = 0.0) -> Stage:
        return Stage(title, tmp_path / title, [], kind=title[:-1], minutes=minutes)

    runner = make_runner(tmp_path)
    assert runner.remaining([], [stage("base1", 10), stage("sft1", 0.5)]) == 630
    assert runner.remaining([], [stage("base1", 10), stage("sft1")]) is None
    runner.seconds = {"sft1": 40.0}
    (tmp_path / "sft1").touch()
    assert runner.remaining([stage("sft1", 0.5)], [stage("sft2", 0.5), stage("base1", 10)]) == 640
    assert runner.remaining([stage("sft1")], [stage("base1"), stage("base2", 10)]) == 640
    runner.show_plan([stage("sft1", 0.5), stage("base1", 10)], commands=False, titles=True)
    assert capsys.readouterr().out.splitlines() == [
        "sft1: finished",
        "base1: about 10 min",
        "1 of 2 commands remain, about 10 min",
    ]


def test_a_training_goes_on_from_its_newest_state_or_starts_again(tmp_path) -> None:
    wanted, folder = Command(["train.x"], None), tmp_path / "run"
    assert go_on(wanted, folder) == ["train.x"]
    (folder / "second").mkdir(parents=True)
    assert go_on(wanted, folder) == ["train.x", "--overwrite"]
    (folder / "second" / "resume.pt").touch()
    assert go_on(wanted, folder) == ["train.x", "--resume"]
    assert wanted.arguments == ["train.x"]


def test_an_evaluation_is_stale_when_the_model_is_newer_or_its_options_differ(tmp_path) -> None:
    model, product = tmp_path / "model.pt", tmp_path / "table.json"
    assert not is_stale(product, Options(), [model])
    model.touch()
    write_json(product, {"options": {"lr": 0.5}})
    os.utime(model, (1, 1))
    assert not is_stale(product, Options(lr=0.5), [model])
    assert is_stale(product, Options(lr=0.25), [model])
    os.utime(product, (0, 0))
    assert is_stale(product, Options(lr=0.5), [model])


def test_the_output_of_a_stage_is_shown_while_it_runs_if_asked_for(probe, tmp_path, capsys) -> None:
    def printed() -> list[str]:
        return capsys.readouterr().out.splitlines()

    make_runner(tmp_path).run([probe("a")])
    assert not any(line.startswith("None ") for line in printed()), "what the probe tells"
    runner = StageRunner(tmp_path, 1, show=True)
    runner.gpus = []
    runner.run([probe("b"), probe("c", "fail")])
    lines = printed()
    first = {
        word: next(i for i, x in enumerate(lines) if x.startswith(word))
        for word in ("None ", "b: ")
    }
    assert first["None "] < first["b: "]
    assert probe("b").command not in lines, "the log begins with it, the screen has it already"
    assert "the reason" in lines
