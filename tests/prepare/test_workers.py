import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prepare.workers import run_jobs
from tests.paths import ROOT
from utils.errors import UserError

PARENT = """
from functools import partial
from prepare.workers import run_jobs
from tests.prepare.test_workers import leave_mark
if __name__ == "__main__":
    list(run_jobs(partial(leave_mark, folder={folder!r}), range(16), 2, "job"))
"""


def square(number: int) -> int:
    return number**2


def leave_mark(job: int, folder: str) -> None:
    """Say which process is at work, and stay at it."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


def end_process(job: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_results_keep_the_order_of_the_jobs():
    expected = [number**2 for number in range(20)]
    assert list(run_jobs(square, range(20), 1, "job")) == expected
    assert list(run_jobs(square, range(20), 2, "job")) == expected
    assert list(run_jobs(square, range(20), 0, "job", worthwhile=100)) == expected
    assert list(run_jobs(square, [], 0, "job")) == []


def test_a_killed_worker_is_told():
    with pytest.raises(UserError, match=r"a worker process was killed.*--jobs 1"):
        list(run_jobs(end_process, range(20), 2, "job"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="states of processes are read from /proc")
def test_no_worker_outlives_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(tmp_path / "marks")))
    (tmp_path / "marks").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], env=environment) as parent:
        wait_for(lambda: len(list((tmp_path / "marks").iterdir())) == 2)
        workers = [int(mark.name) for mark in (tmp_path / "marks").iterdir()]
        assert all(is_running(worker) for worker in workers)
        parent.kill()
    wait_for(lambda: not any(is_running(worker) for worker in workers))
