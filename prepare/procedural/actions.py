"""The actions of the synthetic set: each writes controls for some seconds and says what it did.

An action is a function of (controls, start, end, rng) that returns its `Statement`. Travelling
actions fill the whole body; gestures leave the feet where they are.
"""

from collections.abc import Callable

import numpy as np

from data_loaders.facts import Fact
from prepare.procedural.captions import COUNTS, Detail, Statement
from prepare.procedural.motion import FPS, Controls, bumps, ease, pulse

Action = Callable[[Controls, float, float, np.random.Generator], Statement]
LEFT, RIGHT = 0, 1
SIDE_NAMES = ("left", "right")
ARM_WORDS = "[arm|hand]"
SPEEDS = {"slow": (0.55, 0.75), "normal": (0.95, 1.3), "fast": (1.75, 2.0)}
SPEED_WORDS = {
    "slow": ("slowly", "at a slow pace"),
    "normal": ("at a normal pace",),
    "fast": ("quickly", "at a fast pace", "briskly"),
}


def _time(controls: Controls) -> np.ndarray:
    return np.arange(controls.frames) / FPS


def _travel(
    controls: Controls, start: float, end: float, speed: float, period: float, axis: str = "forward"
) -> float:
    """Accelerate, keep `speed` (m/s), stop; returns the distance in metres."""
    profile = speed * pulse(_time(controls), start, end, 0.7)
    getattr(controls, axis)[:] += profile
    controls.period = period
    return float(np.abs(profile).sum() / FPS)


def _count_detail(kind: str, count: int) -> tuple[Detail, ...]:
    words = COUNTS[count]
    return (Detail(words, (Fact(kind, count),), 0.7 if count > 1 else 0.25),)


def _distance_detail(metres: float) -> tuple[Detail, ...]:
    whole = round(metres)
    if whole < 2 or abs(metres - whole) > 0.35:
        return ()
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    number = names[whole] if whole < len(names) else str(whole)
    words = (f"for about {number} meters", f"for roughly {number} meters")
    return (Detail(words, (Fact("distance", whole),), 0.35),)


def walk(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
    name = str(rng.choice(list(SPEEDS)))
    whole = end - start > 0.8 * controls.frames / FPS
    # the stated pace is the mean over the clip, standing start and stop included
    speed = rng.uniform(*SPEEDS[name]) * ((end - start) / (end - start - 0.7) if whole else 1.0)
    controls.foot_lift = rng.uniform(0.07, 0.12)
    distance = _travel(controls, start, end, speed, period=1.35 - 0.27 * speed)
    pace = (Detail(SPEED_WORDS[name], (Fact("speed", name),), 0.6),) if whole else ()
    return Statement(
        "walk",
        ("<walk> [forward|straight ahead|forwards]", "<move> forward", "<take> steps forward",
         "<stroll> forward"),
        (Fact("travel", "forward"),),
        pace + (_distance_detail(distance) if whole else ()),
    )  # fmt: skip


def run(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
    speed = rng.uniform(2.5, 3.2)
    controls.duty, controls.foot_lift = 0.42, 0.2
    t = _time(controls)
    active = pulse(t, start, end, 0.5)
    controls.elbow += 1.1 * active[:, None]
    controls.lean += 0.15 * active
    _travel(controls, start, end, speed, period=0.72)
    whole = end - start > 0.8 * controls.frames / FPS
    return Statement(
        "run",
        ("<run> [forward|straight ahead]", "<jog> [forward|ahead]", "<run> in a straight line"),
        (Fact("travel", "forward"), Fact("speed", "fast")) if whole else
        (Fact("travel", "forward"),),
    )  # fmt: skip


def walk_backwards(
    controls: Controls, start: float, end: float, rng: np.random.Generator
) -> Statement:
    distance = _travel(controls, start, end, -rng.uniform(0.6, 1.0), period=1.15)
    whole = end - start > 0.8 * controls.frames / FPS
    return Statement(
        "walk-back",
        ("<walk> [backwards|backward]", "<step> [backwards|backward]", "<back> up",
         "<move> backwards"),
        (Fact("travel", "backward"),),
        _distance_detail(distance) if whole else (),
    )  # fmt: skip


def sidestep(side: int) -> Action:
    def act(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
        speed = (1 if side == LEFT else -1) * rng.uniform(0.55, 0.8)
        _travel(controls, start, end, speed, period=0.95, axis="left")
        name = SIDE_NAMES[side]
        return Statement(
            "sidestep",
            (f"<sidestep> to the {name}", f"<step> sideways to the {name}",
             f"<shuffle> to the {name}", f"<move> sideways to their {name}"),
            (Fact("travel", name),),
        )  # fmt: skip

    return act


ANGLE_WORDS = {
    45: ("slightly", "by about 45 degrees"),
    90: ("by 90 degrees", "by a quarter turn"),
    180: ("by 180 degrees", "all the way around"),
}


def turn(side: int, walking: bool) -> Action:
    """Turn by 45, 90 or 180 degrees, on the spot or while walking."""

    def act(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
        angle = int(rng.choice(list(ANGLE_WORDS)))
        middle, half = (start + end) / 2, (end - start) * (0.25 if walking else 0.38)
        profile = pulse(_time(controls), middle - half, middle + half, 0.5)
        radians = np.radians(angle * rng.uniform(0.95, 1.05)) * (1 if side == LEFT else -1)
        controls.turn += profile * radians / (profile.sum() / FPS)
        if walking:
            _travel(controls, start, end, rng.uniform(0.8, 1.2), period=1.1)
        else:
            controls.period = 0.9
        name = SIDE_NAMES[side]
        templates = (
            (f"<walk> forward and <turn> to the {name}", f"<walk> and <make> a {name} turn",
             f"<walk> ahead while turning {name}")
            if walking else
            (f"<turn> to the {name} on the spot", f"<turn> {name} in place",
             f"<rotate> to the {name} without walking")
        )  # fmt: skip
        detail = Detail(ANGLE_WORDS[angle], (Fact("turn_angle", angle),), 0.6)
        place = () if walking else (Fact("travel", "in place"),)
        family = "walk-turn" if walking else "turn"
        return Statement(family, templates, (Fact("turn_side", name), *place), (detail,))

    return act


def circle(side: int) -> Action:
    def act(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
        profile = pulse(_time(controls), start, end, 0.6)
        radians = np.radians(rng.uniform(340, 380)) * (1 if side == LEFT else -1)
        controls.turn += profile * radians / (profile.sum() / FPS)
        _travel(controls, start, end, rng.uniform(0.9, 1.2), period=1.05)
        name = ("counterclockwise", "clockwise")[side]
        return Statement(
            "circle",
            (f"<walk> in a {name} circle", f"<walk> {name} in a circle",
             f"<move> around in a {name} circle"),
            (Fact("turn_side", SIDE_NAMES[side]), Fact("turn_angle", 360)),
        )  # fmt: skip

    return act


def jump(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
    count = int(rng.integers(1, min(3, max(1, int((end - start) / 1.1))) + 1))
    t, slot = _time(controls), (end - start) / count
    height = rng.uniform(0.25, 0.4)
    for i in range(count):
        middle = start + (i + 0.5) * slot
        flight = np.clip((t - middle + 0.25) / 0.5, 0, 1)
        controls.jump += 4 * height * flight * (1 - flight)
        for at in (middle - 0.45, middle + 0.42):
            controls.crouch += 0.2 * pulse(t, at - 0.22, at + 0.22, 0.22)
        controls.flex += 0.9 * pulse(t, middle - 0.3, middle + 0.4, 0.3)[:, None]
    return Statement(
        "jump",
        ("<jump> [up|in place|up in the air|straight up]", "<hop> on the spot"),
        (),
        (Detail(COUNTS[count], (Fact("jump_count", count),), 1.0),),
    )


def squat(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
    count = int(rng.integers(1, min(3, max(1, int((end - start) / 1.6))) + 1))
    depth = bumps(_time(controls), start, end, count, 0.9)
    controls.crouch += rng.uniform(0.38, 0.46) * depth
    controls.back += 0.16 * depth
    controls.lean += 0.45 * depth
    controls.flex += 1.1 * depth[:, None]
    return Statement(
        "squat",
        ("<squat> [down|low]", "<do> squats", "<crouch> down and <stand> up again"),
        (),
        (Detail(COUNTS[count], (Fact("squat_count", count),), 1.0),),
    )


def bow(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
    count = int(rng.integers(1, min(3, max(1, int((end - start) / 1.6))) + 1))
    depth = bumps(_time(controls), start, end, count, 0.9)
    controls.lean += rng.uniform(0.9, 1.15) * depth
    controls.back += 0.1 * depth
    return Statement(
        "bow",
        ("<bow> [forward|politely|deeply]", "<bend> forward at the waist", "<take> a bow"),
        (),
        (Detail(COUNTS[count], (Fact("bow_count", count),), 1.0),),
    )


def kneel(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
    depth = ease((_time(controls) - start) / 1.2) * ease((end - _time(controls)) / 1.0)
    side = int(rng.integers(2))
    controls.crouch += 0.43 * depth
    controls.foot_ahead[:, side] -= 0.36 * depth
    controls.foot_ahead[:, 1 - side] += 0.2 * depth
    controls.foot_up[:, side] += 0.02 * depth
    return Statement(
        "kneel",
        ("<kneel> down", "<go> down on one knee", "<drop> to one knee", "<kneel> on the floor"),
        (Fact("kneel", "yes"),),
    )


def sit(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
    depth = ease((_time(controls) - start) / 1.4)
    controls.crouch += rng.uniform(0.38, 0.42) * depth
    controls.back += 0.28 * depth
    controls.lean += 0.25 * np.sin(np.pi * depth) + 0.05 * depth
    controls.flex += 0.5 * depth[:, None]
    return Statement(
        "sit",
        ("<sit> down", "<sit> down on a chair", "<lower> onto a seat", "<take> a seat"),
        (Fact("sit", "yes"),),
    )


def raise_arm(side: str) -> Action:
    def act(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
        count = int(rng.integers(1, min(3, max(1, int((end - start) / 1.9))) + 1))
        up = bumps(_time(controls), start, end, count, 0.92)
        height = rng.uniform(2.5, 2.9)
        for index in _arms(side):
            controls.flex[:, index] += height * up
        things = "both [arms|hands]" if side == "both" else f"[the|their] {side} {ARM_WORDS}"
        return Statement(
            "raise",
            (f"<raise> {things}", f"<lift> {things} up", f"<put> {things} up in the air"),
            (Fact("hand_up", side),),
            (
                *_count_detail("raise_count", count),
                Detail(("above the head", "over their head"), (Fact("above_head", side),), 0.3),
            ),
        )

    return act


def wave(side: str) -> Action:
    def act(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
        t = _time(controls)
        up = pulse(t, start, end, 0.7)
        waving = pulse(t, start + 0.6, end - 0.6, 0.3)
        rate = rng.uniform(1.1, 1.7)
        for index in _arms(side):
            controls.flex[:, index] += 1.0 * up
            controls.abduct[:, index] += 0.55 * up
            controls.elbow[:, index] += 1.6 * up
            controls.sway[:, index] += 0.65 * waving * np.sin(2 * np.pi * rate * (t - start))
        things = "both [hands|arms]" if side == "both" else f"[the|their] {side} {ARM_WORDS}"
        return Statement(
            "wave",
            (f"<wave> {things}", f"<wave> with {things}", f"<raise> {things} and <wave>",
             f"<greet> someone by waving {things}"),
            (Fact("wave_side", side),),
        )  # fmt: skip

    return act


def kick(side: int) -> Action:
    def act(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
        count = int(rng.integers(1, min(3, max(1, int((end - start) / 1.2))) + 1))
        up = bumps(_time(controls), start, end, count, 0.75)
        controls.foot_up[:, side] += rng.uniform(0.5, 0.65) * up
        controls.foot_ahead[:, side] += rng.uniform(0.55, 0.65) * up
        controls.lean -= 0.15 * up
        name = SIDE_NAMES[side]
        return Statement(
            "kick",
            (f"<kick> with the {name} [leg|foot]", f"<kick> forward with their {name} foot",
             f"<swing> the {name} leg up in a kick"),
            (Fact("kick_side", name),),
            _count_detail("kick_count", count),
        )  # fmt: skip

    return act


def punch(side: int) -> Action:
    def act(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
        count = int(rng.integers(1, min(4, max(1, int((end - start) / 0.8))) + 1))
        t = _time(controls)
        guard = pulse(t, start - 0.2, end + 0.2, 0.4)
        out = bumps(t, start + 0.3, end - 0.3, count, 0.75)
        for index in (LEFT, RIGHT):
            controls.flex[:, index] += 0.2 * guard
            controls.elbow[:, index] += 2.1 * guard
        controls.flex[:, side] += 1.15 * out
        controls.elbow[:, side] -= 2.15 * out
        controls.lean += 0.1 * out
        name = SIDE_NAMES[side]
        return Statement(
            "punch",
            (f"<punch> with the {name} [hand|fist]", f"<punch> forward with their {name} arm",
             f"<throw> punches with the {name} hand"),
            (Fact("punch_side", name),),
            _count_detail("punch_count", count),
        )  # fmt: skip

    return act


def throw(side: int) -> Action:
    def act(controls: Controls, start: float, end: float, rng: np.random.Generator) -> Statement:
        t, middle = _time(controls), (start + end) / 2
        back = pulse(t, middle - 1.1, middle + 0.12, 0.6)
        follow = pulse(t, middle - 0.12, middle + 0.9, 0.24)
        controls.flex[:, side] += 2.5 * back + 1.1 * follow * (1 - back)
        controls.abduct[:, side] += 0.4 * back
        controls.elbow[:, side] += 1.5 * back * (1 - follow)
        controls.lean += 0.3 * follow - 0.12 * back
        controls.foot_ahead[:, 1 - side] += 0.12 * back
        name = SIDE_NAMES[side]
        return Statement(
            "throw",
            (f"<throw> [something|a ball|an object] with the {name} hand",
             f"<hurl> something forward with their {name} arm",
             f"<toss> a ball overhand with the {name} hand"),
            (Fact("throw_side", name),),
        )  # fmt: skip

    return act


def _arms(side: str) -> tuple[int, ...]:
    return (LEFT, RIGHT) if side == "both" else (SIDE_NAMES.index(side),)


TRAVELS: dict[str, Action] = {
    "walk": walk,
    "run": run,
    "walk-back": walk_backwards,
    **{f"sidestep-{n}": sidestep(i) for i, n in enumerate(SIDE_NAMES)},
    **{f"walk-turn-{n}": turn(i, walking=True) for i, n in enumerate(SIDE_NAMES)},
    **{f"circle-{n}": circle(i) for i, n in enumerate(SIDE_NAMES)},
}
GESTURES: dict[str, Action] = {
    **{f"turn-{n}": turn(i, walking=False) for i, n in enumerate(SIDE_NAMES)},
    "jump": jump,
    "squat": squat,
    "kneel": kneel,
    "sit": sit,
    "bow": bow,
    **{f"raise-{n}": raise_arm(n) for n in (*SIDE_NAMES, "both")},
    **{f"wave-{n}": wave(n) for n in (*SIDE_NAMES, "both")},
    **{f"kick-{n}": kick(i) for i, n in enumerate(SIDE_NAMES)},
    **{f"punch-{n}": punch(i) for i, n in enumerate(SIDE_NAMES)},
    **{f"throw-{n}": throw(i) for i, n in enumerate(SIDE_NAMES)},
}
# Gestures that can follow a travel without making a fact of either untrue.
FOLLOWERS = tuple(
    name for name in GESTURES if name.split("-")[0] in ("raise", "wave", "kick", "squat", "bow")
)
