"""Threads: what is settled before torch is loaded, and that no script forgets it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.test_imports import is_entry_point, modules
from utils import threads
from utils.threads import SPIN_COUNT, quotas, settle_threads, share_threads, usable_cores

ENTRY_POINTS = sorted(name for name, tree in modules().items() if is_entry_point(tree))
SPIN = str(SPIN_COUNT)


@pytest.fixture
def four_cores(monkeypatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ({}, {"OMP_NUM_THREADS": "4", "GOMP_SPINCOUNT": SPIN}),
        ({"OMP_NUM_THREADS": "7"}, {"OMP_NUM_THREADS": "7", "GOMP_SPINCOUNT": SPIN}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "4"}),
        ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5", "OMP_NUM_THREADS": "4"}),
    ],
)
def test_the_users_own_setting_wins(four_cores, given: dict, settled: dict) -> None:
    settle_threads(given)
    assert given == settled


def test_processes_side_by_side_share_the_cores(four_cores) -> None:
    def shared(environment: dict[str, str], processes: int) -> str:
        share_threads(environment, processes)
        return environment["OMP_NUM_THREADS"]

    assert [shared({}, processes) for processes in (1, 2, 3, 8)] == ["4", "2", "1", "1"]
    assert shared({"OMP_NUM_THREADS": "4"}, 2) == "2", "that is what a parent process has settled"
    assert shared({"OMP_NUM_THREADS": "3"}, 2) == "3"


GROUP_1, GROUP_2 = "sys/fs/cgroup/cpu", "sys/fs/cgroup"
SELF = "proc/self/cgroup"


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
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    assert list(quotas(tmp_path)) == expected


@pytest.mark.parametrize(("found", "cores"), [([], 3), ([2.5, 8.0], 2), ([0.5], 1)])
def test_cores_are_whole_ones_of_affinity_and_quota(monkeypatch, found: list, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    monkeypatch.setattr(threads, "quotas", lambda: found)
    assert usable_cores() == cores


@pytest.mark.parametrize("name", [*ENTRY_POINTS, "tests.verify_golden"])
def test_every_script_settles_its_threads_before_all_else(name: str) -> None:
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "from utils.start import entry_point"
    main = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert [ast.unparse(decorator) for decorator in main.decorator_list] == ["entry_point"]


def test_threads_are_settled_without_torch() -> None:
    report = "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    code = f"import os, sys, utils.start; {report}"
    own = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {k: v for k, v in os.environ.items() if k not in own} | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [SPIN, "False"]
