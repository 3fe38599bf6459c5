"""Calls side by side: their order, their settings, their errors, and the numbers of threads."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch

from model.worker_threads import run_side_by_side


@pytest.fixture
def own_threads() -> Iterator[int]:
    """The test's own number of threads, which no worker may change; put back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def together(count: int, call: Callable[[int], object]) -> list[object]:
    """`call` of 0, 1, ... from as many threads at once: each waits for the others."""
    barrier = threading.Barrier(count)

    def one(number: int) -> object:
        barrier.wait(timeout=60)
        return call(number)

    return run_side_by_side([lambda n=n: one(n) for n in range(count)], count)


def settings() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
    )


def test_calls_run_at_once_and_answer_in_order() -> None:
    main = threading.get_ident()
    found = together(3, lambda number: (number, threading.get_ident()))
    assert [number for number, _ in found] == [0, 1, 2]
    assert len({thread for _, thread in found} - {main}) == 3


def test_one_thread_is_the_callers_own() -> None:
    main = threading.get_ident()
    assert run_side_by_side([threading.get_ident] * 2, 1) == [main, main]


def test_more_calls_than_threads_all_run() -> None:
    assert run_side_by_side([lambda n=n: n for n in range(20)], 2) == list(range(20))


@pytest.mark.parametrize(
    "context",
    [
        nullcontext(),
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16),
        torch.autocast("cpu", torch.float16, cache_enabled=False),
        torch.autocast("cpu", enabled=False),
    ],
    ids=["none", "no_grad", "inference", "bfloat16", "no_cache", "off"],
)
def test_calls_have_the_settings_of_their_caller(context: AbstractContextManager) -> None:
    untouched = together(2, lambda _: settings())
    with context:
        expected = settings()
        assert together(2, lambda _: settings()) == [expected] * 2
        assert settings() == expected
    assert together(2, lambda _: settings()) == untouched


def test_workers_compute_with_one_thread_and_their_caller_keeps_its_own(own_threads: int) -> None:
    assert together(2, lambda _: torch.get_num_threads()) == [1, 1]
    assert torch.get_num_threads() == own_threads
    torch.set_num_threads(own_threads + 1)
    assert together(2, lambda _: torch.get_num_threads()) == [1, 1]
    assert torch.get_num_threads() == own_threads + 1


def fail() -> None:
    raise ArithmeticError("no result")


def test_errors_reach_the_caller_and_leave_the_threads_usable() -> None:
    with pytest.raises(ArithmeticError, match="no result"):
        run_side_by_side([int, fail, int], 2)
    assert run_side_by_side([int, int], 2) == [0, 0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    together(2, lambda number: number)  # these threads do not exist in the fork
    context = multiprocessing.get_context("fork")
    child = context.Process(target=run_side_by_side, args=([int, int], 2))
    child.start()
    child.join(timeout=60)
    finished = child.exitcode
    child.kill()
    assert finished == 0
