"""How many threads a process computes with, and how they wait for one another.

PyTorch's OpenMP settles both when it is loaded, from the environment, so `settle_threads` must run
before torch is imported: `utils.start` does, which every script imports first. GNU's OpenMP by
default lets a thread that waits spin for milliseconds, in the hope of work: on a machine that
other processes use as well, threads then spin through the time in which the thread they wait for
could run. Some 1000 turns bridge the gap between two operations of a small network, and no more.
What the user has set stays. The number of threads does not follow the load, because sums of
floating-point numbers, and so every digit of a training, depend on it.
"""

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

SPIN_COUNT = 1000  # turns of a waiting thread before it sleeps; python -m eval.benchmark --threads


def settle_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what the user has not set."""
    environment.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))


def share_threads(environment: MutableMapping[str, str], processes: int) -> None:
    """Settle for one of so many processes at a time: each has its share of the cores, unless the
    user has chosen another number."""
    settle_threads(environment)
    if environment["OMP_NUM_THREADS"] == str(usable_cores()):
        environment["OMP_NUM_THREADS"] = str(max(1, usable_cores() // processes))


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and whole ones of its cgroup's quota.

    A part of a core is left out: a thread that a quota stops is one that all others wait for.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([own, *quotas()])))


def quotas(root: Path = Path("/")) -> Iterator[float]:
    """Cores by the quota of each control group that holds this process, of version 1 or 2."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = Path(path.lstrip("/"))
        for folder in (own, *own.parents):  # a container may show its own group as the root
            if (cores := _quota(mount / folder)) is not None:
                yield cores


def _quota(folder: Path) -> float | None:
    """Cores by the quota of one group; None where it has none."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((folder / name).read_text().strip() for name in names)
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
