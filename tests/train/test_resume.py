"""Going on with a run: after its end, a crash, Ctrl-C or SIGTERM, and with which options."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch

from tests.train.regression import Regression, options_for, train
from tests.train.scripts import contents, read_metrics
from train.interrupts import StopSignals
from train.loop import Trainer, start_run
from utils.errors import UserError
from utils.files import load_tensors, read_json, save_tensors, write_json
from utils.locks import FolderLock


@pytest.fixture(autouse=True)
def usual_signals():
    """As a shell starts a command, also where the tests run with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def same_run(one: Path, other: Path, but: str = "") -> bool:
    """Are weights, metrics, and names of checkpoints, all `but` one, those of another run?"""
    files = contents(one).keys() - {but} == contents(other).keys() - {but}
    final = [load_tensors(folder / "model000000030.pt") for folder in (one, other)]
    weights = all(torch.equal(final[0][key], final[1][key]) for key in final[0])
    return files and weights and read_metrics(one) == read_metrics(other)


def send(number: int, at: int, again: int = 0):
    """Before step `at` the process is sent a signal, and another in the same step."""

    def before(step: int) -> None:
        if step == at:
            os.kill(os.getpid(), number)
            if again:
                os.kill(os.getpid(), again)

    return before


def test_a_resumed_run_equals_an_unbroken_one(tmp_path) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "parts", num_steps=15)
    train(tmp_path / "parts", resume=True)
    whole, parts = (load_tensors(tmp_path / n / "model000000030.pt") for n in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("step", [8, 10, 15])
def test_a_signal_finishes_the_step_and_saves(tmp_path, capsys, number, code, step) -> None:
    train(tmp_path / "whole")
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "parts", before=send(number, at=step))
    assert ended.value.code == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"stopped by {signal.Signals(number).name} after step {step} of 30")
    assert "--resume" in last
    folder = tmp_path / "parts" if step == 15 else tmp_path / "parts" / "interim"
    assert f"saved in {folder / f'model{step:09d}.pt'};" in last
    assert (folder / f"model{step:09d}.pt").is_file()
    train(tmp_path / "parts", resume=True)
    assert same_run(tmp_path / "parts", tmp_path / "whole")


def test_the_checkpoint_of_an_interruption_stays_where_it_is_the_best(tmp_path) -> None:
    class Falling(Regression):
        def validate(self):
            return {"score": abs(self.reached - 10)}

        def step(self, batch, step, rng):
            self.reached = step + 1
            return super().step(batch, step, rng)

    with pytest.raises(SystemExit):
        train(tmp_path, Falling, before=send(signal.SIGINT, at=10))
    train(tmp_path, Falling, resume=True)
    assert read_json(tmp_path / "best.json")["path"] == "model000000010.pt"
    assert (tmp_path / "model000000010.pt").is_file()


def test_a_second_ctrl_c_ends_at_once(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, before=send(signal.SIGINT, at=8, again=signal.SIGINT))
    assert not (tmp_path / "resume.pt").exists()


def test_who_stops_a_run_after_ctrl_c_does_not_cut_it_off(tmp_path) -> None:
    """A runner of commands gets the Ctrl-C of the terminal too, and then terminates them."""
    with pytest.raises(SystemExit) as ended:
        train(tmp_path, before=send(signal.SIGINT, at=8, again=signal.SIGTERM))
    assert ended.value.code == 130
    assert load_tensors(tmp_path / "resume.pt")["step"] == 8


def test_signals_are_given_back_and_ignored_ones_stay_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as stop:
        assert signal.getsignal(signal.SIGTERM) == stop._note
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.noted == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_crash_leaves_no_superseded_checkpoint(tmp_path) -> None:
    def crash(step: int) -> None:
        if step == 9:
            raise RuntimeError("a crash")

    with pytest.raises(RuntimeError, match="a crash"):
        train(tmp_path, before=crash, val_interval=5)
    train(tmp_path, val_interval=5, resume=True)
    kept = {path.name for path in tmp_path.glob("model*.pt")}
    asked = {"model000000015.pt", "model000000030.pt"}
    assert kept == asked | {read_json(tmp_path / "best.json")["path"]}


def test_metrics_of_steps_after_the_state_are_dropped(tmp_path) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "parts", num_steps=15)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "loss": 7.0}\n{"step": 25, "lo')  # a kill in the middle of a line
    train(tmp_path / "parts", resume=True)
    lines = read_metrics(tmp_path / "parts")
    assert [line["step"] for line in lines if "loss" in line] == [1, 5, 10, 15, 20, 25, 30]
    assert [line for line in lines if line["step"] > 15] == [
        line for line in read_metrics(tmp_path / "whole") if line["step"] > 15
    ]


def test_an_overwritten_run_is_no_longer_resumed_or_mixed_with_the_new_one(tmp_path) -> None:
    train(tmp_path)

    def crash(step: int) -> None:
        if step == 9:
            raise RuntimeError("a crash")

    with pytest.raises(RuntimeError, match="a crash"):
        train(tmp_path, before=crash, overwrite=True, lr=0.5)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 5]
    with pytest.raises(UserError, match=r"holds no resume\.pt, so there is nothing to go on from"):
        train(tmp_path, resume=True)


def test_nothing_to_resume_is_told_before_anything_is_loaded(tmp_path) -> None:
    with pytest.raises(UserError, match="nothing to go on from; start without --resume"):
        start_run(options_for(tmp_path / "empty", resume=True))
    assert not (tmp_path / "empty").exists()
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "resume.pt").touch()
    with pytest.raises(UserError, match="nothing to go on from"):
        start_run(options_for(tmp_path, resume=True))
    with pytest.raises(UserError, match=r"args\.json does not exist"):
        start_run(options_for(tmp_path, resume=True), folders=("first", "second"))


def test_other_options_are_named_and_nothing_is_written(tmp_path) -> None:
    train(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError) as refused:
        train(tmp_path, resume=True, lr=0.1, num_steps=20, grad_clip=1.0)
    assert "(--num_steps 30 -> 20, --lr 0.05 -> 0.1, --grad_clip 0.0 -> 1.0)" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before


def test_intervals_trackers_device_and_more_steps_are_free(tmp_path) -> None:
    train(tmp_path)
    free = {"log_interval": 1, "val_interval": 5, "save_interval": 5, "device": "auto"}
    train(tmp_path, resume=True, num_steps=35, overwrite=True, cuda=False, **free)
    assert read_json(tmp_path / "args.json")["num_steps"] == 35
    with pytest.raises(UserError, match="--num_steps 35 -> 30"):
        train(tmp_path, resume=True)


def test_a_run_from_before_an_option_existed_goes_on(tmp_path) -> None:
    train(tmp_path)
    args = read_json(tmp_path / "args.json")
    del args["grad_clip"], args["device"]
    write_json(tmp_path / "args.json", args)
    with pytest.raises(UserError, match=r"\(--grad_clip 0\.0 -> 1\.0\)"):
        train(tmp_path, resume=True, grad_clip=1.0)
    train(tmp_path, resume=True, num_steps=35)


def test_a_damaged_state_is_named_and_the_one_before_is_used(tmp_path, capsys) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "parts", num_steps=25, val_interval=5)
    train(tmp_path / "whole_too", val_interval=5)
    path = tmp_path / "parts" / "resume.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    train(tmp_path / "parts", val_interval=5, resume=True)
    told = capsys.readouterr().out
    assert re.search(r"resume\.pt has changed since .*; going on from step \d+, the state", told)
    assert same_run(tmp_path / "parts", tmp_path / "whole_too", but="model000000025.pt")

    for name in ("resume.pt", "resume_previous.pt"):
        (tmp_path / "parts" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"resume\.pt is not a .*resume_previous\.pt is not"):
        train(tmp_path / "parts", resume=True, num_steps=40)


def test_a_kill_between_the_renames_of_a_state_leaves_the_one_before(tmp_path) -> None:
    train(tmp_path)
    (tmp_path / "resume.pt").rename(tmp_path / "resume_previous.pt")
    train(tmp_path, resume=True, num_steps=35)
    assert load_tensors(tmp_path / "resume.pt")["step"] == 35


@pytest.mark.parametrize("entry", ["best", "superseded"])
@pytest.mark.parametrize("name", ["../precious.txt", "/precious.txt", "..", 7])
def test_names_in_a_state_never_leave_the_folder(tmp_path, entry, name) -> None:
    train(tmp_path / "run")
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    state = load_tensors(tmp_path / "run" / "resume.pt")
    name = str(precious) if name == "/precious.txt" else name
    state[entry] = {"step": 1, "path": name, "score": 0.0} if entry == "best" else name
    save_tensors(tmp_path / "run" / "resume.pt", state)
    with pytest.raises(UserError, match="which is no name in"):
        train(tmp_path / "run", resume=True, num_steps=60)
    assert precious.read_text() == "precious"


def test_a_state_that_lacks_something_is_told(tmp_path) -> None:
    train(tmp_path)
    (tmp_path / "resume_previous.pt").unlink()
    save_tensors(tmp_path / "resume.pt", {"module": {}})
    with pytest.raises(UserError, match="no state of a training: it lacks average"):
        train(tmp_path, resume=True)


def test_two_runs_never_share_a_folder(tmp_path) -> None:
    train(tmp_path, num_steps=15)
    before = contents(tmp_path)
    with FolderLock(tmp_path):
        with pytest.raises(UserError, match="in use by process"):
            train(tmp_path, resume=True)
        options = options_for(tmp_path, overwrite=True)
        with pytest.raises(UserError, match="in use by process"):
            start_run(options)
    assert contents(tmp_path) == before


def test_minutes_without_a_checkpoint_are_not_lost(tmp_path, capsys) -> None:
    def crash(step: int) -> None:
        if step == 9:
            raise RuntimeError("a crash")

    often = {"autosave_minutes": 1e-9, "val_interval": 30}
    with pytest.raises(RuntimeError, match="a crash"):
        train(tmp_path / "parts", before=crash, **often)
    assert load_tensors(tmp_path / "parts" / "resume.pt")["step"] == 8
    assert not list((tmp_path / "parts").glob("model*.pt"))
    train(tmp_path / "parts", resume=True, **often)
    train(tmp_path / "whole", val_interval=30)
    assert same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_state_of_another_architecture_is_refused(tmp_path) -> None:
    train(tmp_path)
    options = options_for(tmp_path, resume=True)
    with pytest.raises(UserError, match="another architecture"):
        Trainer(Regression(options, width=2), options, start_run(options)).run()
