"""Two processes stop at the same step, whichever was told to, and go on as if they never had."""

from utils.start import entry_point

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch

from tests.train.ranks import WORLD, join, run_ranks
from tests.train.regression import Regression, train
from tests.train.scripts import read_metrics
from utils.errors import UserError
from utils.files import load_tensors


class Remembering(Regression):
    """Every process remembers something else, as a threshold of its own rewards does."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.memory: list[tuple[int, int]] = []

    def step(self, batch, step, rng):
        self.memory.append((torch.distributed.get_rank(), step))
        return super().step(batch, step, rng)

    def state_dict(self):
        return {"memory": list(self.memory)}

    def load_state_dict(self, state):
        self.memory = list(state["memory"])


def work(rank: int, port: int, folder: str) -> None:
    """An unbroken training, and one of which the last process alone is told to stop."""
    join(rank, port)

    def told(step: int) -> None:
        if rank == WORLD - 1 and step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    train(Path(folder) / "whole")
    with pytest.raises(SystemExit, match="143"):
        train(Path(folder) / "parts", before=told)
    task = train(Path(folder) / "parts", resume=True)
    told = Path(folder) / "told"
    train(told, Remembering, num_steps=15)
    memory = train(told, Remembering, resume=True, num_steps=16).memory
    assert memory == [(rank, step) for step in range(16)]
    torch.save(task.module.state_dict(), Path(folder) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_stop_together_and_resume(tmp_path: Path) -> None:
    run_ranks(work, tmp_path)
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")
    whole = load_tensors(tmp_path / "whole" / "model000000030.pt")
    for rank in range(WORLD):
        state = load_tensors(tmp_path / f"rank{rank}.pt")
        assert all(torch.equal(state[name], value) for name, value in whole.items())
    assert not (tmp_path / "parts" / "interim").exists()
    with pytest.raises(UserError, match="with 2 processes, and this one has 1; start as many"):
        train(tmp_path / "parts", resume=True, num_steps=40)


def lonely(rank: int, port: int, folder: str) -> None:
    """A training of which the last process is killed; what the other one says goes to a file."""
    join(rank, port)
    sys.stderr = open(Path(folder) / f"rank{rank}.err", "w", buffering=1)  # noqa: SIM115

    def die(step: int) -> None:
        if rank == WORLD - 1 and step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    entry_point(lambda: train(Path(folder) / "run", before=die, autosave_minutes=1e-9))()


def test_a_killed_process_ends_the_others_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=lonely, args=(rank, port, str(tmp_path))) for rank in range(WORLD)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [2, -signal.SIGKILL]
    told = (tmp_path / "rank0.err").read_text()
    assert told.splitlines()[-1].startswith("error: another process of this training has ended")
    assert "Traceback" not in told
    assert load_tensors(tmp_path / "run" / "resume.pt")["step"] == 7
