"""Do the clips of a made dataset show what their captions say? And are they cut where they should?

A caption that names an action is compared with a measurement on the joints. Captions of people are
not always right, so a share of agreement proves nothing by itself; beside it stands the share of
all clips that pass the same measurement, which is what motions in a random order would give.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from data_loaders.captions import read_caption_file
from data_loaders.skeleton import HUMANML, facing_direction
from prepare.cmu.build import CUTS_FILE
from utils.errors import UserError
from utils.files import read_array, read_json

PELVIS, NECK = 0, 12
ANKLES, FEET = [7, 8], [7, 8, 10, 11]
SIGNIFICANCE = 0.01  # of the one-sided test of the shares against the base rates
LEAST_TRIALS = 0.9  # share of whole trials that end where they should
LONGEST_CUT = 200  # poses; HumanML3D cuts longer trials


@dataclass(frozen=True)
class Extremes:
    """The most that a clip shows of each of these; metres, seconds, degrees.

    climbing: longest time with both feet 0.2 above the floor. flight: highest that both feet are at
    once. kick: highest ankle while the other foot is near the floor. speed: of the fastest second.
    pelvis: lowest height as a share of the standing height. bend: trunk from the vertical. turn:
    between the headings that lie furthest apart, whole turns counted.
    """

    climbing: float
    flight: float
    kick: float
    speed: float
    pelvis: float
    bend: float
    turn: float


def measure_extremes(joints: np.ndarray, fps: float = HUMANML.fps) -> Extremes:
    """Of joints [T, 22, 3] with T >= 2, Y up, on the reference body."""
    heights = joints[..., 1]
    feet = heights[:, FEET].min(axis=1)
    feet = feet - np.quantile(feet, 0.1)
    ankles = heights[:, ANKLES] - np.quantile(heights[:, ANKLES], 0.1)
    window = min(round(fps), len(joints) - 1)
    ways = joints[window:, PELVIS] - joints[:-window, PELVIS]
    trunk = joints[:, NECK] - joints[:, PELVIS]
    lean = np.arctan2(np.linalg.norm(trunk[:, [0, 2]], axis=1), trunk[:, 1])
    facing = facing_direction(torch.from_numpy(joints), HUMANML).numpy()
    heading = np.unwrap(np.arctan2(facing[:, 0], facing[:, 2]))
    pelvis = heights[:, PELVIS]
    return Extremes(
        climbing=_longest(feet > 0.2) / fps,
        flight=float(feet.max()),
        kick=float(np.where(ankles[:, ::-1] < 0.25, ankles, 0.0).max()),
        speed=float(np.linalg.norm(ways[:, [0, 2]], axis=1).max() / window * fps),
        pelvis=float(pelvis.min() / np.quantile(pelvis, 0.9)),
        bend=float(np.degrees(lean.max())),
        turn=float(np.degrees(np.ptp(heading))),
    )


def _longest(mask: np.ndarray) -> int:
    """Length of the longest run of True in [T]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return int(np.diff(edges)[::2].max(initial=0))


@dataclass(frozen=True)
class Check:
    """Captions with `words` speak of the action; `shown` tells whether a clip has it."""

    action: str
    words: str
    criterion: str
    shown: Callable[[Extremes], bool]


CHECKS = (
    Check(
        "climb",
        r"\bclimb|\bladder|\bup ?stairs",
        "both feet 0.2 m up for 1 s",
        lambda m: m.climbing >= 1.0,
    ),
    Check(
        "run",
        r"\b(runs?|ran|running|jog\w*|sprint\w*)\b",
        "2 m/s over a second",
        lambda m: m.speed >= 2.0,
    ),
    Check(
        "kick",
        r"\bkick",
        "an ankle 0.5 m up, the other foot down",
        lambda m: m.kick >= 0.5,
    ),
    Check(
        "jump",
        r"\b(jump|hop|leap)",
        "both feet 0.15 m up, for less than 1 s",
        lambda m: m.flight >= 0.15 and m.climbing < 1.0,
    ),
    Check(
        "squat or bend",
        r"\bsquat|\bcrouch|\bbend(s|ing)? (down|over|forward|to|at the (knee|waist))",
        "pelvis below 0.75 of standing, or trunk at 45 degrees",
        lambda m: m.pelvis <= 0.75 or m.bend >= 45.0,
    ),
    Check(
        "spin or turn around",
        r"\bspin|\bturn\w* (\w+ )?around|(?<!half )(?<!semi )(?<!half-)\bcircles?\b",
        "headings 150 degrees apart",
        lambda m: m.turn >= 150.0,
    ),
)


@dataclass(frozen=True)
class Agreement:
    """`agree` of `total`; base: share of the whole set that passes the same measurement.

    disagreements: clip, and what was said of it.
    """

    name: str
    criterion: str
    agree: int
    total: int
    base: float
    disagreements: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """actions: captions against measurements. trials: clips of whole trials against their ends."""

    actions: tuple[Agreement, ...]
    trials: Agreement

    @property
    def right(self) -> bool:
        """Do captions fit more often than in a random order, and nearly all clips end rightly?"""
        agree, total = (sum(getattr(a, name) for a in self.actions) for name in ("agree", "total"))
        expected = sum(a.total * a.base for a in self.actions)
        fits = binomtest(agree, total, expected / total, "greater").pvalue < SIGNIFICANCE
        return fits and self.trials.agree >= LEAST_TRIALS * self.trials.total

    def table(self) -> str:
        """Shares, base rates and every disagreement."""
        lines = [f"{'action':20} {'agree':>12} {'base':>6}  measured"]
        lines += [_row(a, f"{a.base:.2f}") for a in self.actions]
        lines += [_row(self.trials, "-"), ""]
        for agreement in (*self.actions, self.trials):
            lines += [f"{agreement.name}: not so in {d}" for d in agreement.disagreements]
        return "\n".join(lines)


def _row(agreement: Agreement, base: str) -> str:
    counts = f"{agreement.agree} of {agreement.total}"
    return f"{agreement.name:20} {counts:>12} {base:>6}  {agreement.criterion}"


def verify(folder: Path) -> Verification:
    """Raises UserError when the folder was not made by this command, or nothing can be checked."""
    cuts = read_json(folder / CUTS_FILE)
    said = [
        (clip, caption.text.lower())
        for clip in cuts
        for caption in read_caption_file(folder / "texts" / f"{clip}.txt")[0]
        if caption.whole_clip
    ]
    shown = {clip: measure_extremes(_joints(folder, clip)) for clip in cuts}
    actions = tuple(check_action(check, said, shown) for check in CHECKS)
    if not any(action.total for action in actions):
        raise UserError(f"{folder}: no caption names an action that is measured, as climb or run")
    return Verification(actions, check_trials(cuts))


def _joints(folder: Path, clip: str) -> np.ndarray:
    return read_array(folder / "new_joints" / f"{clip}.npy").astype(np.float64)


def check_action(
    check: Check, said: list[tuple[str, str]], shown: dict[str, Extremes]
) -> Agreement:
    """said: pairs of clip and caption; shown: by clip."""
    passes = {clip: check.shown(extremes) for clip, extremes in shown.items()}
    named = [(clip, text) for clip, text in said if re.search(check.words, text)]
    return Agreement(
        check.action,
        check.criterion,
        sum(passes[clip] for clip, _ in named),
        len(named),
        sum(passes[clip] for clip, _ in said) / max(1, len(said)),
        tuple(f"{clip}: {text}" for clip, text in named if not passes[clip]),
    )


def check_trials(cuts: dict[str, dict[str, Any]]) -> Agreement:
    """Where a trial of at most ten seconds is one clip, it ends with the trial's last pose."""
    ends = {
        clip: (cut["end"], math.ceil(cut["native_frames"] / (cut["native_fps"] / HUMANML.fps)))
        for clip, cut in cuts.items()
        if cut["whole"]
    }
    ends = {clip: pair for clip, pair in ends.items() if min(pair) < LONGEST_CUT}
    wrong = [f"{clip}: ends at {a} of {b} poses" for clip, (a, b) in ends.items() if a != b]
    criterion = "end_frame = ceil(frames / (rate / 20))"
    return Agreement(
        "whole trials", criterion, len(ends) - len(wrong), len(ends), 0.0, tuple(wrong)
    )
