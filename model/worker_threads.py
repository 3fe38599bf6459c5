"""Calls of a network side by side on a CPU.

One call of a small network holds too little work to share among the cores: as many calls as there
are cores, with one thread each, finish sooner than one after the other with all threads.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")


def run_side_by_side(calls: Sequence[Callable[[], T]], threads: int) -> list[T]:
    """The results of the calls, in order; with one thread they run in the caller's own.

    Grad mode, inference mode and autocast are settings of a thread, so each call gets the
    caller's. Raises what the first failing call raises.
    """
    if threads == 1:
        return [call() for call in calls]
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    dtype, reduced = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")
    cached = torch.is_autocast_cache_enabled()

    def run(call: Callable[[], T]) -> T:
        autocast = torch.autocast("cpu", dtype=dtype, enabled=reduced, cache_enabled=cached)
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), autocast:
            return call()

    return list(_pool(threads, os.getpid()).map(run, calls))


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept for the next calls. A forked process has none of its parent's threads, so `process`
    tells whose they are."""
    torch.get_num_threads()  # settles the caller's number, which the first worker would change
    return ThreadPoolExecutor(threads, initializer=_use_one_thread)


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # settles it: later changes by other threads no longer reach this one
