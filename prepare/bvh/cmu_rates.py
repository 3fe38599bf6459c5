"""The native frame rate of every trial of the CMU database, which its files do not say."""

import functools
import re
from pathlib import Path

import yaml

USUAL, SLOW = 120, 60  # frames per second
TABLE = Path(__file__).with_name("cmu_rates.yaml")


def trial_name(stem: str) -> str | None:
    """``07_01`` of a file's stem such as ``07_01``, ``7_1`` or ``07_01_poses``; None of others."""
    match = re.fullmatch(r"(\d+)_(\d+)(_poses)?", stem)
    return f"{int(match[1]):02d}_{int(match[2]):02d}" if match else None


def native_fps(trial: str) -> int:
    """Frames per second of a trial such as ``07_01``."""
    return SLOW if trial in _slow_trials() else USUAL


@functools.cache
def _slow_trials() -> frozenset[str]:
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return frozenset(
        f"{subject:02d}_{number:02d}"
        for subject, ranges in table.items()
        for first, _, last in (part.partition("-") for part in str(ranges).split(", "))
        for number in range(int(first), int(last or first) + 1)
    )
