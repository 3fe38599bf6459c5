"""One function over many jobs, in as many processes as there are cores."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from utils.errors import UserError
from utils.options import option
from utils.threads import usable_cores

CHUNK = 2  # jobs that a process takes at once, and finishes when it is interrupted
Job, Result = TypeVar("Job"), TypeVar("Result")


@dataclass
class JobOptions:
    """For every script that works on many clips."""

    jobs: int = option(0, "worker processes; 0 = one per core", minimum=0, free="always")


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    unit: str,
    worthwhile: int = 1,
) -> Iterator[Result]:
    """Results in the order of `jobs`, with a progress bar that counts in `unit`s.

    workers: processes; 0 = one per core that this process may use, as long as each gets
    `worthwhile` jobs, which make up for the seconds that it takes to start. The function must be
    picklable, as each process starts afresh. The processes end when this one does, however it ends.
    Raises UserError when one of them is killed.
    """
    count = min(workers or usable_cores(), len(jobs) if workers else len(jobs) // worthwhile)
    if count <= 1:
        yield from tqdm(map(function, jobs), total=len(jobs), unit=unit)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(count, context, _start_worker) as pool:
            results = pool.map(function, jobs, chunksize=CHUNK)
            yield from tqdm(results, total=len(jobs), unit=unit)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for want of memory; give --jobs 1"
        ) from None


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the parent tells them
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes wait for jobs for ever when their parent is killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
