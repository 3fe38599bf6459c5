"""Threads: what is settled before torch is loaded, and that no script forgets it."""

import ast
import os
import subprocess
import sys

import pytest

from tests.paths import ROOT
from tests.test_imports import is_entry_point, modules
from utils import threads
from utils.threads import SPIN_COUNT, settle_threads, share_threads

ENTRY_POINTS = sorted(name for name, tree in modules().items() if is_entry_point(tree))
COUNT, POLICY, SPIN = "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
FOUR = {COUNT: "4", SPIN: str(SPIN_COUNT)}  # threads on an idle machine


@pytest.fixture(autouse=True)
def four_idle_cores(monkeypatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads, "idle_cores", lambda: 3.9)


def settled(environment: dict[str, str]) -> dict[str, str]:
    """What OpenMP would read."""
    settle_threads(environment)
    return {name: environment[name] for name in (COUNT, POLICY, SPIN) if name in environment}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, FOUR),
        ({COUNT: "7"}, {COUNT: "7", POLICY: "passive"}),
        ({COUNT: "1"}, {COUNT: "1"}),
        ({COUNT: "4,2"}, {COUNT: "4,2", SPIN: str(SPIN_COUNT)}),
        ({POLICY: "active"}, {POLICY: "active", COUNT: "4"}),
        ({SPIN: "5"}, {SPIN: "5", COUNT: "4"}),
    ],
)
def test_the_users_own_setting_wins(given: dict[str, str], expected: dict[str, str]) -> None:
    assert settled(given) == expected


@pytest.mark.parametrize(("idle", "passive"), [(None, False), (3.6, False), (3.0, True)])
def test_threads_that_share_their_cores_sleep_at_once(monkeypatch, idle, passive: bool) -> None:
    monkeypatch.setattr(threads, "idle_cores", lambda: idle)
    found = settled({})
    assert found == ({COUNT: "4", POLICY: "passive"} if passive else FOUR)


def test_a_child_process_settles_anew_and_keeps_what_was_set_for_it(monkeypatch) -> None:
    environment: dict[str, str] = {"HOME": "/"}
    assert settled(environment) == FOUR
    monkeypatch.setattr(threads, "idle_cores", lambda: 0.0)
    assert settled(dict(environment)) == {COUNT: "4", POLICY: "passive"}
    assert settled(environment | {COUNT: "2"}) == {COUNT: "2", POLICY: "passive"}


def test_processes_side_by_side_share_the_cores() -> None:
    def shared(environment: dict[str, str], processes: int) -> str:
        settle_threads(environment)  # the parent
        share_threads(environment, processes)
        return settled(environment)[COUNT]

    assert [shared({}, processes) for processes in (1, 2, 3, 8)] == ["4", "2", "1", "1"]
    assert shared({COUNT: "3"}, 2) == "3"


@pytest.mark.parametrize("name", [*ENTRY_POINTS, "sopo", "tests.verify_golden"])
def test_every_script_settles_its_threads_before_all_else(name: str) -> None:
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "from utils.start import entry_point"
    main = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert [ast.unparse(decorator) for decorator in main.decorator_list] == ["entry_point"]


def test_threads_are_settled_without_torch() -> None:
    report = f"print(os.environ['{COUNT}'], 'torch' in sys.modules)"
    code = f"import os, sys, utils.start; {report}"
    environment = {k: v for k, v in os.environ.items() if k != COUNT} | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    count, loaded = run.stdout.split()
    assert int(count) >= 1
    assert loaded == "False"
