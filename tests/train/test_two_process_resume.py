"""Two processes stop at the same step, whichever was told to, and go on as if they never had."""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.train.ranks import WORLD, join, run_ranks
from tests.train.regression import train
from tests.train.scripts import read_metrics
from utils.files import load_tensors


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
    torch.save(task.module.state_dict(), Path(folder) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_stop_together_and_resume(tmp_path: Path) -> None:
    run_ranks(work, tmp_path)
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")
    whole = load_tensors(tmp_path / "whole" / "model000000030.pt")
    for rank in range(WORLD):
        state = load_tensors(tmp_path / f"rank{rank}.pt")
        assert all(torch.equal(state[name], value) for name, value in whole.items())
    assert not (tmp_path / "parts" / "model000000008.pt").exists()
