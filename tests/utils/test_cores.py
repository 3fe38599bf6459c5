"""Cores, as the files of a Linux system tell of them."""

import os
from pathlib import Path

import pytest

from utils import cores
from utils.cores import idle_cores, physical_cores, quotas, usable_cores

GROUP_1, GROUP_2 = "sys/fs/cgroup/cpu", "sys/fs/cgroup"
SELF = "proc/self/cgroup"


@pytest.fixture(autouse=True)
def three_of_six(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({SELF: "0::/"}, []),
        ({SELF: "0::/", f"{GROUP_2}/cpu.max": "max 100000"}, []),
        ({SELF: "0::/a/b", f"{GROUP_2}/a/cpu.max": "150000 100000"}, [1.5]),
        (
            {
                SELF: "4:memory:/a\n1:cpu,cpuacct:/a\n0::/",
                f"{GROUP_1}/a/cpu.cfs_quota_us": "-1",
                f"{GROUP_1}/a/cpu.cfs_period_us": "100000",
                f"{GROUP_1}/cpu.cfs_quota_us": "300000",
                f"{GROUP_1}/cpu.cfs_period_us": "100000",
            },
            [3.0],
        ),
    ],
    ids=["no Linux", "no limits", "unlimited", "version 2, of the group above", "version 1"],
)
def test_quotas_of_control_groups(tmp_path: Path, files: dict[str, str], expected: list) -> None:
    write(tmp_path, files)
    assert list(quotas(tmp_path)) == expected


@pytest.mark.parametrize(("quota", "expected"), [(None, 3), ("2.9", 2), ("8", 3), ("0.5", 1)])
def test_usable_are_whole_cores_of_affinity_and_quota(tmp_path, quota, expected: int) -> None:
    if quota is not None:
        cpu_max = f"{int(float(quota) * 100_000)} 100000"
        write(tmp_path, {SELF: "0::/", f"{GROUP_2}/cpu.max": cpu_max})
    assert usable_cores(tmp_path) == expected


def test_threads_of_one_core_count_once(tmp_path: Path) -> None:
    for core, siblings in ((0, "0,2"), (2, "0,2"), (5, "4-5")):
        write(
            tmp_path, {f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list": siblings}
        )
    assert physical_cores(tmp_path) == 2


def test_idle_cores_are_those_of_the_affinity_since_the_first_look(tmp_path, monkeypatch) -> None:
    def stat(busy: int, idle: int, waiting: int, others: int) -> dict[str, str]:
        own = [f"cpu{n} {busy} 0 0 {idle} {waiting} 0 0 0 0 0" for n in (0, 2, 5)]
        return {"proc/stat": "\n".join([*own, f"cpu1 {others} 0 0 0 0 0 0 0 0 0", "intr 1 2"])}

    write(tmp_path, stat(100, 1000, 50, 0))
    monkeypatch.setattr(cores.time, "sleep", lambda _: write(tmp_path, stat(105, 1004, 51, 900)))
    assert idle_cores(tmp_path) == 1.5
    assert idle_cores(tmp_path / "elsewhere") is None
