"""How many cores a process may use, and how many of them are idle. Linux tells more than others."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

LOOK_SECONDS = 0.1  # at the load, which the kernel counts in hundredths
ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """Physical cores of this process's affinity, and whole ones of its cgroup's quota.

    A part of a core is left out: a thread that a quota stops is one that all others wait for.
    """
    return max(1, int(min([physical_cores(root), *quotas(root)])))


def idle_cores(root: Path = ROOT) -> float | None:
    """Physical cores of the affinity that nothing runs on, over a moment; None = not known."""
    before = _ticks(root)
    time.sleep(LOOK_SECONDS)
    idle, total = (after - b for after, b in zip(_ticks(root), before, strict=True))
    return physical_cores(root) * idle / total if total else None


def affinity() -> set[int]:
    """The numbers of the logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores(root: Path = ROOT) -> int:
    """Of the affinity. Two threads on one core share its arithmetic, which one can use alone."""
    folder = root / "sys/devices/system/cpu"
    try:
        siblings = [folder / f"cpu{n}/topology/thread_siblings_list" for n in affinity()]
        return len({path.read_text() for path in siblings})
    except OSError:
        return len(affinity())


def _ticks(root: Path) -> tuple[int, int]:
    """Idle and all ticks of the logical cores since the system started; 0 where it is not Linux."""
    try:
        lines = [line.split() for line in (root / "proc/stat").read_text().splitlines()]
    except OSError:
        return 0, 0
    names = {f"cpu{number}" for number in affinity()}
    rows = [[int(value) for value in line[1:9]] for line in lines if line and line[0] in names]
    return sum(row[3] + row[4] for row in rows), sum(map(sum, rows))


def quotas(root: Path = ROOT) -> Iterator[float]:
    """Cores by the quota of each control group that holds this process, of version 1 or 2."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
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
