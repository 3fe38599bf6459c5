"""How many threads a process computes with, and how they wait for one another.

PyTorch's OpenMP settles both when it is loaded, from the environment, so `settle_threads` must run
before torch is imported: `utils.start` does, which every script imports first. By default a thread
that waits spins for milliseconds, in the hope of work. Where other processes need the cores, it so
takes the time in which the threads that it waits for could run, and small networks become ten times
slower. To sleep at once is right there, but costs time on an idle machine, where a short spin
bridges the gap to the next operation. So the load at the start decides how to wait, and what the
user has set stays; ``python -m eval.benchmark --threads`` compares. The number of threads does not
follow the load, because sums of floating-point numbers, and so the digits of a training, depend on
it.
"""

import os
from collections.abc import MutableMapping

from utils.cores import idle_cores, usable_cores

SPIN_COUNT = 20_000  # turns of a waiting thread before it sleeps, below a millisecond
SETTLED = "SOPO_SETTLED"  # what was settled, so that child processes can settle it anew

Environment = MutableMapping[str, str]


def settle_threads(environment: Environment = os.environ) -> None:
    """Set what the user has not set. Takes a moment, to look at the load."""
    forget_settled(environment)
    given = set(environment)
    environment.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & given:
        environment.update(way_to_wait(environment["OMP_NUM_THREADS"]))
    settled = sorted(set(environment) - given)
    environment[SETTLED] = " ".join(f"{name}={environment[name]}" for name in settled)


def share_threads(environment: Environment, processes: int) -> None:
    """Prepare the environment of one of so many child processes at a time.

    Each has its share of the cores, unless the user has set a number, and looks at the load itself.
    """
    forget_settled(environment)
    if processes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))


def forget_settled(environment: Environment) -> None:
    """Take back what a parent process has settled, and nothing that was set since."""
    for pair in environment.pop(SETTLED, "").split():
        name, _, value = pair.partition("=")
        if environment.get(name) == value:
            del environment[name]


def way_to_wait(threads: str) -> dict[str, str]:
    """Sleep at once where so many threads do not all find an idle core, else spin for a while."""
    count = int(threads) if threads.isdigit() else usable_cores()  # OpenMP allows lists as well
    if count == 1:
        return {}
    idle = idle_cores()
    busy = idle is not None and idle < count - max(0.5, 0.1 * count)
    return {"OMP_WAIT_POLICY": "passive"} if busy else {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
