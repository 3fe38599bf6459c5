"""The oracle: physical facts that a caption states, and their measurement on any motion.

Works on joints ``[T, 22, 3]`` (HumanML3D skeleton, metres, Y up). It knows nothing of the models
that are judged, so no reward can flatter it. A quantity that cannot be measured makes its facts
fail; nothing raises.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d

from data_loaders.skeleton import HUMANML, facing_direction

Value = str | float

PELVIS, HEAD = 0, 15
HIPS, KNEES, ANKLES, FEET = (1, 2), (4, 5), (7, 8), (10, 11)
SHOULDERS, ELBOWS, WRISTS = (16, 17), (18, 19), (20, 21)
SIDES = ("left", "right")  # index 0 is the left joint of each pair

# Thresholds, in metres, seconds, degrees. They lie between what happens in motions that show the
# action and in motions that do not, on the synthetic set and on motion capture.
SMOOTH_SECONDS = 0.45  # removes the sway of the pelvis within a step
HAND_UP = 0.0  # wrist above its shoulder: the hand is raised
HAND_DOWN = -0.20  # wrist this far below its shoulder: lowered again
ABOVE_HEAD = 0.0  # wrist above the head joint
STROKE = 0.05  # smallest sideways stroke of a waving wrist
MOVED = 0.5  # net way of the pelvis from which a person has travelled
TURNING = 25.0  # total turn from which it counts as one
FLIGHT = 0.07  # both feet this far above the floor: in the air
KICK_HEIGHT = 0.32  # ankle this far above its resting height
KICK_AHEAD = 0.25  # and this far in front of the pelvis
PUNCH_REACH = 0.33  # wrist this far in front of its shoulder
PUNCH_BACK = 0.25  # and back behind this: the punch is over
CROUCH = 0.72  # pelvis height over standing height: below it is crouching
RISEN = 0.85
KNEE_ON_FLOOR = 0.20  # knee height
TRUNK_BENT = 40.0  # trunk from the vertical
TRUNK_UPRIGHT = 22.0
# Direction of travel: centre and half width, in degrees from the facing, positive to the left
TRAVEL_SECTORS = {
    "forward": (0.0, 35.0),
    "backward": (180.0, 35.0),
    "left": (60.0, 45.0),
    "right": (-60.0, 45.0),
}


@dataclass(frozen=True)
class Fact:
    """`kind` is a key of `FACT_CHECKS`; `value` a side, a direction, a count or a quantity."""

    kind: str
    value: Value

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not isinstance(self.value, (str, int, float)):
            raise TypeError(f"a fact is a kind and a word or number, not {self.kind}, {self.value}")


@dataclass(frozen=True)
class Measurements:
    """What the oracle reads off one motion. Pairs are (left, right)."""

    duration: float
    turn: float  # degrees, positive to the left
    distance: float  # metres along the smoothed path of the pelvis
    displacement: float  # metres from the first to the last place
    speed: float  # metres per second
    direction: float  # degrees of travel relative to the facing, positive to the left
    raises: tuple[int, int]
    peak_over_head: tuple[float, float]
    strokes: tuple[int, int]
    jumps: int
    kicks: tuple[int, int]
    punches: tuple[int, int]
    squats: int
    bows: int
    lowest_pelvis: float  # share of the standing height
    lowest_knees: float  # metres, the lower knee at its lowest
    ends_low: bool
    fastest_hand: str


def measure(joints: np.ndarray, fps: float = HUMANML.fps) -> Measurements | None:
    """Measurements of joints ``[T, 22, 3]``; None when they cannot be taken (NaN, too short)."""
    joints = np.asarray(joints, np.float64)
    if joints.ndim != 3 or len(joints) < 8 or not np.isfinite(joints).all():
        return None
    joints = joints - [0.0, joints[:, FEET, 1].min(), 0.0]
    forward = facing_direction(torch.from_numpy(joints), HUMANML).numpy()
    if not np.isfinite(forward).all():
        return None
    yaw = np.unwrap(np.arctan2(forward[:, 0], forward[:, 2]))
    window = max(3, round(SMOOTH_SECONDS * fps))
    path = uniform_filter1d(joints[:, PELVIS][:, [0, 2]], window, axis=0, mode="nearest")
    steps = np.diff(path, axis=0)
    distance = float(np.linalg.norm(steps, axis=1).sum())
    duration = len(joints) / fps
    height = joints[:, PELVIS, 1]
    standing = float(np.quantile(height, 0.9))
    hand_speed = np.linalg.norm(np.diff(joints[:, WRISTS], axis=0), axis=-1).max(axis=0)
    return Measurements(
        duration=duration,
        turn=float(np.degrees(yaw[-4:].mean() - yaw[:4].mean())),
        distance=distance,
        displacement=float(np.linalg.norm(path[-1] - path[0])),
        speed=distance / duration,
        direction=_travel_direction(steps, yaw),
        raises=_per_side(_raises, joints),
        peak_over_head=_per_side(_peak_over_head, joints),
        strokes=_per_side(lambda j, side: _strokes(j, forward, side), joints),
        jumps=_events(_clearance(joints), FLIGHT, 0.03),
        kicks=_per_side(lambda j, side: _kicks(j, forward, side), joints),
        punches=_per_side(lambda j, side: _punches(j, forward, side), joints),
        squats=_events(-height / standing, -CROUCH, -RISEN),
        bows=_bows(joints),
        lowest_pelvis=float(height.min() / standing),
        lowest_knees=float(joints[:, KNEES, 1].min()),
        ends_low=bool(height[-3:].mean() < CROUCH * standing),
        fastest_hand=SIDES[int(hand_speed.argmax())],
    )


def _per_side(function: Callable[[np.ndarray, int], float], joints: np.ndarray) -> tuple:
    return tuple(function(joints, side) for side in (0, 1))


def _events(signal: np.ndarray, high: float, low: float) -> int:
    """How often `signal` ``[T]`` rises above `high`, having been below `low` in between."""
    count, armed = 0, True
    for value in signal:
        if armed and value > high:
            count, armed = count + 1, False
        elif value < low:
            armed = True
    return count


def _clearance(joints: np.ndarray) -> np.ndarray:
    """Height ``[T]`` of the lowest foot joint above where it is while standing."""
    lowest = joints[:, [*ANKLES, *FEET], 1].min(axis=1)
    return lowest - np.quantile(lowest, 0.1)


def _travel_direction(steps: np.ndarray, yaw: np.ndarray) -> float:
    """Mean direction of travel in the body's frame, in degrees; positive to the left."""
    sin, cos = np.sin(yaw[1:]), np.cos(yaw[1:])
    ahead = (steps[:, 0] * sin + steps[:, 1] * cos).sum()
    left = (steps[:, 0] * cos - steps[:, 1] * sin).sum()
    return float(np.degrees(math.atan2(left, ahead)))


def _raises(joints: np.ndarray, side: int) -> int:
    height = joints[:, WRISTS[side], 1] - joints[:, SHOULDERS[side], 1]
    return _events(height, HAND_UP, HAND_DOWN)


def _peak_over_head(joints: np.ndarray, side: int) -> float:
    return float((joints[:, WRISTS[side], 1] - joints[:, HEAD, 1]).max())


def _strokes(joints: np.ndarray, forward: np.ndarray, side: int) -> int:
    """Sideways strokes of the wrist against the elbow while the hand is up."""
    arm = joints[:, WRISTS[side]] - joints[:, ELBOWS[side]]
    sideways = arm[:, 0] * forward[:, 2] - arm[:, 2] * forward[:, 0]
    up = joints[:, WRISTS[side], 1] > joints[:, ELBOWS[side], 1] + 0.05
    return _reversals(sideways[up], STROKE)


def _reversals(signal: np.ndarray, size: float) -> int:
    """How many strokes of at least `size` a 1-D signal makes between its turning points."""
    if len(signal) == 0:
        return 0
    count, direction = 0, 0
    low = high = signal[0]
    for value in signal:
        low, high = min(low, value), max(high, value)
        if direction != 1 and value - low > size:
            count, direction, high = count + 1, 1, value
        elif direction != -1 and high - value > size:
            count, direction, low = count + 1, -1, value
    return count


def _kicks(joints: np.ndarray, forward: np.ndarray, side: int) -> int:
    """The foot goes up in front of the body (in a run it goes up behind)."""
    ankle = joints[:, ANKLES[side]]
    height = ankle[:, 1] - np.quantile(joints[:, ANKLES, 1], 0.1)
    ahead = ((ankle - joints[:, PELVIS]) * forward).sum(axis=1)
    return _events(np.where(ahead > KICK_AHEAD, height, 0.0), KICK_HEIGHT, 0.15)


def _punches(joints: np.ndarray, forward: np.ndarray, side: int) -> int:
    """The wrist shoots forward between hip and head height."""
    arm = joints[:, WRISTS[side]] - joints[:, SHOULDERS[side]]
    reach = (arm * forward).sum(axis=1)
    level = np.abs(arm[:, 1]) < 0.30
    return _events(np.where(level, reach, 0.0), PUNCH_REACH, PUNCH_BACK)


def _bows(joints: np.ndarray) -> int:
    trunk = joints[:, 12] - joints[:, PELVIS]
    angle = np.degrees(np.arctan2(np.linalg.norm(trunk[:, [0, 2]], axis=1), trunk[:, 1]))
    return _events(angle, TRUNK_BENT, TRUNK_UPRIGHT)


# Checks. Each takes the measurements and the stated value.


def _side_of(counts: tuple[float, float], least: float = 1) -> str:
    left, right = (count >= least for count in counts)
    return "both" if left and right else "left" if left else "right" if right else "none"


def _near(measured: float, stated: Value, share: float, slack: float) -> bool:
    return abs(measured - float(stated)) <= share * abs(float(stated)) + slack


def _turned_to(m: Measurements, side: Value) -> bool:
    return m.turn > TURNING if side == "left" else m.turn < -TURNING


def _travels(m: Measurements, direction: Value) -> bool:
    if direction == "in place":
        return m.displacement < MOVED
    # sideways is wide: people turn the hips into a sideways walk
    centre, width = TRAVEL_SECTORS[str(direction)]
    return m.displacement >= MOVED and abs((m.direction - centre + 180) % 360 - 180) <= width


def _goes_at(m: Measurements, speed: Value) -> bool:
    limits = {"slow": (0.0, 0.95), "normal": (0.6, 1.7), "fast": (1.5, math.inf)}[str(speed)]
    return limits[0] <= m.speed <= limits[1]


FACT_CHECKS: dict[str, Callable[[Measurements, Value], bool]] = {
    # turned to this side by more than 25 degrees between start and end
    "turn_side": _turned_to,
    # turned by about this many degrees, either side
    "turn_angle": lambda m, v: _near(abs(m.turn), v, 0.25, 15.0),
    # travels forward, backward, left, right (relative to the facing), or stays in place
    "travel": _travels,
    # walks about this many metres
    "distance": lambda m, v: _near(m.distance, v, 0.25, 0.4),
    # travels slowly, at a normal pace, fast
    "speed": _goes_at,
    # this hand (left, right, both) rises above its shoulder, the other does not
    "hand_up": lambda m, v: _side_of(m.raises) == v,
    # this hand rises above the head
    "above_head": lambda m, v: _side_of(m.peak_over_head, ABOVE_HEAD) == v,
    # the hand that rises most often does so this many times
    "raise_count": lambda m, v: max(m.raises) == v,
    # this hand waves: at least three strokes from side to side
    "wave_side": lambda m, v: _side_of(m.strokes, 3) == v,
    # the hand that waves most makes about this many strokes
    "wave_strokes": lambda m, v: _near(max(m.strokes), v, 0.25, 1.0),
    "jump_count": lambda m, v: m.jumps == v,
    "kick_side": lambda m, v: _side_of(m.kicks) == v,
    "kick_count": lambda m, v: max(m.kicks) == v,
    "punch_side": lambda m, v: _side_of(m.punches) == v,
    "punch_count": lambda m, v: max(m.punches) == v,
    "squat_count": lambda m, v: m.squats == v,
    "bow_count": lambda m, v: m.bows == v,
    # which hand is the fastest: it throws
    "throw_side": lambda m, v: m.fastest_hand == v,
    # goes down to a knee
    "kneel": lambda m, _: m.lowest_knees < KNEE_ON_FLOOR and m.lowest_pelvis < RISEN,
    # goes down and stays there, without a knee on the floor
    "sit": lambda m, _: m.ends_low and m.lowest_knees > KNEE_ON_FLOOR,
    # lasts about this many seconds
    "duration": lambda m, v: _near(m.duration, v, 0.15, 0.5),
}

_OTHER_SIDE = {"left": "right", "right": "left"}


def holds(fact: Fact, measurements: Measurements | None) -> bool:
    """Is the fact true of the motion? Unmeasurable motions satisfy nothing."""
    return measurements is not None and bool(FACT_CHECKS[fact.kind](measurements, fact.value))


def swap_sides(fact: Fact) -> Fact:
    """The fact of the mirrored motion."""
    return Fact(fact.kind, _OTHER_SIDE.get(str(fact.value), fact.value))


def is_side_fact(fact: Fact) -> bool:
    """Does the fact say left or right?"""
    return fact.value in _OTHER_SIDE


@dataclass(frozen=True)
class FactAccuracy:
    """Shares of facts that hold; None where none was stated. by_kind: (share, number)."""

    overall: float | None
    side: float | None
    by_kind: dict[str, tuple[float, int]]


def score_facts(
    facts: Sequence[Sequence[Fact]], joints: Sequence[np.ndarray], fps: float = HUMANML.fps
) -> FactAccuracy:
    """Check every motion's stated facts: joints are ``[T, 22, 3]`` each."""
    results: list[tuple[Fact, bool]] = []
    for stated, motion in zip(facts, joints, strict=True):
        if stated:
            measured = measure(motion, fps)
            results += [(fact, holds(fact, measured)) for fact in stated]
    kinds = sorted({fact.kind for fact, _ in results})
    by_kind = {}
    for kind in kinds:
        hits = [hit for fact, hit in results if fact.kind == kind]
        by_kind[kind] = (float(np.mean(hits)), len(hits))
    sides = [hit for fact, hit in results if is_side_fact(fact)]
    return FactAccuracy(_share([hit for _, hit in results]), _share(sides), by_kind)


def _share(hits: list[bool]) -> float | None:
    return float(np.mean(hits)) if hits else None
