"""How the threads of a small network wait for one another best, on an idle and a busy machine.

Each measurement is a process of its own, as OpenMP reads its settings once; all settings take
turns, so that whatever else the machine does slows them alike.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from eval.speed.small_work import MOTIONS, STEPS
from utils.tables import markdown_table

ROOT = Path(__file__).resolve().parents[2]
SPINNING = 2  # busy processes beside the measured one
OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@dataclass(frozen=True)
class Setting:
    """settled: as every script of this project begins; else PyTorch's own way, and `variables`."""

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    settled: bool = False


NONE = Setting("no setting")
PASSIVE = Setting("passive waiting", {"OMP_WAIT_POLICY": "passive"})
OURS = Setting("utils.threads", settled=True)
SETTINGS = (NONE, PASSIVE, OURS)


@dataclass(frozen=True)
class Times:
    """Seconds of the training steps and of the motions, a value per repetition."""

    steps: list[float] = field(default_factory=list)
    motions: list[float] = field(default_factory=list)

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.steps), statistics.median(self.motions)


@contextmanager
def spinning(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(setting: Setting, quick: bool) -> tuple[float, float]:
    """Seconds of steps and motions in a new process."""
    environment = {name: value for name, value in os.environ.items() if name not in OPENMP}
    environment |= setting.variables | {"PYTHONPATH": str(ROOT)}
    first = "import utils.start; " if setting.settled else ""
    code = f"{first}from eval.speed.small_work import report; report({quick})"
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    steps, motions = json.loads(run.stdout)
    return steps, motions


def compare_waiting(repetitions: int, quick: bool) -> dict[str, dict[str, Times]]:
    """Condition -> name of the setting -> its times; prints while it goes."""
    print(f"load average at the start: {os.getloadavg()[0]:.1f}")
    found: dict[str, dict[str, Times]] = {}
    for condition, busy in (("idle", 0), ("busy", SPINNING)):
        found[condition] = {setting.name: Times() for setting in SETTINGS}
        for _ in range(repetitions):
            for setting in SETTINGS:
                with spinning(busy):
                    steps, motions = measure(setting, quick)
                found[condition][setting.name].steps.append(steps)
                found[condition][setting.name].motions.append(motions)
                print(f"{condition}, {setting.name}: {steps:.2f} s, {motions:.2f} s", flush=True)
    return found


def format_waiting(found: dict[str, dict[str, Times]]) -> str:
    """Medians, and below them the two ratios that decide."""
    header = ["threads"]
    for condition in found:
        header += [f"{condition}: {STEPS} steps (s)", f"{MOTIONS} motions (s)"]
    rows = [
        [name, *(f"{value:.2f}" for times in found.values() for value in times[name].medians)]
        for name in found["idle"]
    ]
    lines = [markdown_table(header, rows), ""]
    for condition, other in (("idle", NONE), ("busy", PASSIVE)):
        pairs = zip(*(found[condition][s.name].medians for s in (OURS, other)), strict=True)
        steps, motions = (ours / theirs for ours, theirs in pairs)
        lines.append(
            f"{condition}, {OURS.name} against {other.name}: {steps:.2f} times the seconds of the "
            f"steps, {motions:.2f} times those of the motions"
        )
    return "\n".join(lines)
