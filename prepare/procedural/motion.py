"""Procedural human motion on the reference skeleton: controls over time, and a body that obeys.

A motion is planned as `Controls`, one array per quantity and frame (speeds, crouch, lean, arm
angles, ...). `solve` turns them into joints: it integrates the root's path, plants the feet along
it (a planted foot does not move), and places knees by two-bone inverse kinematics.
"""

from dataclasses import dataclass, field

import numpy as np

from data_loaders.skeleton import HUMANML

FPS = HUMANML.fps
BONES = np.linalg.norm(np.array(HUMANML.target_offsets), axis=1)
LEG = np.array([BONES[4] + BONES[7], BONES[5] + BONES[8]])
ANKLE_HEIGHT = 0.065  # of a flat foot
STANDING = ANKLE_HEIGHT + 0.97 * LEG.mean()  # pelvis height with the knees nearly straight
HIP_WIDTH = 0.09  # lateral place of a footfall
SIGN = np.array([1.0, -1.0])  # left is +X


@dataclass
class Controls:
    """All ``[T]`` or ``[T, 2]`` (left, right); angles in radians, lengths in metres.

    Arm angles: flex 0 = hanging, pi/2 = forward, pi = up; abduct = sideways; elbow = bend; sway =
    sideways swing of the forearm.
    """

    frames: int
    period: float = 1.1  # of a gait cycle, seconds
    duty: float = 0.62  # share of the cycle that a foot is planted
    foot_lift: float = 0.09
    stiffness: float = 0.0  # smaller arm swing for 1
    forward: np.ndarray = field(init=False)
    left: np.ndarray = field(init=False)
    turn: np.ndarray = field(init=False)
    crouch: np.ndarray = field(init=False)
    back: np.ndarray = field(init=False)
    lean: np.ndarray = field(init=False)
    jump: np.ndarray = field(init=False)
    flex: np.ndarray = field(init=False)
    abduct: np.ndarray = field(init=False)
    elbow: np.ndarray = field(init=False)
    sway: np.ndarray = field(init=False)
    foot_ahead: np.ndarray = field(init=False)
    foot_up: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        for name in ("forward", "left", "turn", "crouch", "back", "lean", "jump"):
            setattr(self, name, np.zeros(self.frames))
        for name in ("flex", "abduct", "elbow", "sway", "foot_ahead", "foot_up"):
            setattr(self, name, np.zeros((self.frames, 2)))


def ease(x: np.ndarray | float) -> np.ndarray:
    """Minimum-jerk ramp from 0 (x <= 0) to 1 (x >= 1)."""
    x = np.clip(x, 0.0, 1.0)
    return x**3 * (10 - 15 * x + 6 * x**2)


def pulse(t: np.ndarray, start: float, end: float, rise: float) -> np.ndarray:
    """0 before `start`, 1 in the middle, 0 after `end`; ramps of `rise` seconds."""
    rise = min(rise, (end - start) / 2)
    return ease((t - start) / rise) * ease((end - t) / rise)


def bumps(t: np.ndarray, start: float, end: float, count: int, fill: float = 0.8) -> np.ndarray:
    """`count` equal pulses between `start` and `end`; each takes the share `fill` of its slot."""
    slot = (end - start) / count
    total = np.zeros_like(t)
    for i in range(count):
        centre = start + (i + 0.5) * slot
        half = fill * slot / 2
        total += pulse(t, centre - half, centre + half, half * 0.8)
    return total


def solve(controls: Controls, rng: np.random.Generator) -> np.ndarray:
    """Joints ``[T, 22, 3]`` in metres, starting at the origin and facing +Z."""
    t = np.arange(controls.frames) / FPS
    yaw = np.cumsum(controls.turn) / FPS
    path = _root_path(controls, yaw)
    speed = np.hypot(controls.forward, controls.left)
    moving = ease(speed / 0.4)
    phase = 2 * np.pi * (t / controls.period + rng.uniform())
    ankles, feet_yaw = _footfalls(controls, t, path, yaw, phase)
    height = _pelvis_height(controls, moving, phase, path, yaw, ankles)
    axes = _frame(yaw)
    pelvis = np.stack([path[:, 0], height + controls.jump, path[:, 1]], axis=1)
    pelvis -= axes[2] * controls.back[:, None]
    ankles[..., 1] += controls.jump[:, None]
    joints = np.zeros((controls.frames, HUMANML.num_joints, 3))
    joints[:, 0] = pelvis
    swing = np.sin(phase) * moving * np.clip(speed, 0, 2.2) * 0.32 * (1 - controls.stiffness)
    _place_legs(joints, axes, ankles, feet_yaw)
    _place_trunk(joints, axes, controls, swing, rng)
    _place_arms(joints, axes, controls, swing)
    return joints


def _frame(yaw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left, up and forward axes ``[T, 3]`` of a body with this heading."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    left = np.stack([np.cos(yaw), zero, -np.sin(yaw)], axis=-1)
    ahead = np.stack([np.sin(yaw), zero, np.cos(yaw)], axis=-1)
    return left, np.stack([zero, one, zero], axis=-1), ahead


def _root_path(controls: Controls, yaw: np.ndarray) -> np.ndarray:
    """Horizontal path ``[T, 2]`` (x, z) by integrating the body-frame speeds."""
    left, _, ahead = _frame(yaw)
    velocity = controls.forward[:, None] * ahead + controls.left[:, None] * left
    return np.cumsum(velocity[:, [0, 2]], axis=0) / FPS


def _footfalls(
    controls: Controls, t: np.ndarray, path: np.ndarray, yaw: np.ndarray, phase: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ankles ``[T, 2, 3]`` and heading of the feet ``[T, 2]``.

    A foot is planted where the body will be in the middle of its stance; between two stances it
    swings on a minimum-jerk curve that is as high as the step is long.
    """
    ankles, headings = np.zeros((len(t), 2, 3)), np.zeros((len(t), 2))
    start = phase[0] / (2 * np.pi) * controls.period
    for side in (0, 1):
        cycle = (t + start) / controls.period + 0.5 * side
        index = np.floor(cycle)
        part = cycle - index  # 0 .. duty: planted; duty .. 1: in the air
        places = []
        for offset in (0, 1):
            middle = (index + offset + controls.duty / 2 - 0.5 * side) * controls.period - start
            places.append(_standing_place(middle, t, path, yaw, side))
        (here, heading), (there, next_heading) = places
        air = ease((part - controls.duty) / (1 - controls.duty))
        place = here + (there - here) * air[:, None]
        length = np.linalg.norm(there - here, axis=1) + 0.25 * np.abs(next_heading - heading)
        lift = controls.foot_lift * ease(length / 0.5) * np.sin(np.pi * air) ** 2
        ankles[:, side] = np.stack([place[:, 0], ANKLE_HEIGHT + lift, place[:, 1]], axis=1)
        headings[:, side] = heading + (next_heading - heading) * air
        ahead = _frame(yaw)[2]
        ankles[:, side] += controls.foot_ahead[:, side, None] * ahead
        ankles[:, side, 1] += controls.foot_up[:, side]
    return ankles, headings


def _standing_place(
    middle: np.ndarray, t: np.ndarray, path: np.ndarray, yaw: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where a foot stands ``[T, 2]`` (x, z), and its heading, when its stance is centred then."""
    x, z, heading = (np.interp(middle, t, v) for v in (path[:, 0], path[:, 1], yaw))
    left = _frame(heading)[0]
    place = np.stack([x, z], axis=1) + SIGN[side] * HIP_WIDTH * left[:, [0, 2]]
    return place, heading


def _pelvis_height(
    controls: Controls,
    moving: np.ndarray,
    phase: np.ndarray,
    path: np.ndarray,
    yaw: np.ndarray,
    ankles: np.ndarray,
) -> np.ndarray:
    """Standing height less crouch, the bob of walking, and what a leg would not reach."""
    height = STANDING - controls.crouch - 0.02 * moving * (1 - np.cos(2 * phase)) / 2
    left, _, ahead = _frame(yaw)
    for side in (0, 1):
        hip = path + SIGN[side] * BONES[1 + side] * left[:, [0, 2]]
        hip = hip - controls.back[:, None] * ahead[:, [0, 2]]
        apart = np.linalg.norm(ankles[:, side][:, [0, 2]] - hip, axis=1)
        reach = (0.995 * LEG[side]) ** 2 - np.minimum(apart, 0.8 * LEG[side]) ** 2
        height = np.minimum(height, ankles[:, side, 1] + np.sqrt(reach))
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    return np.convolve(np.pad(height, 2, mode="edge"), kernel, mode="valid")


def _place_legs(
    joints: np.ndarray, axes: tuple[np.ndarray, ...], ankles: np.ndarray, feet_yaw: np.ndarray
) -> None:
    left, up, ahead = axes
    for side in (0, 1):
        hip = joints[:, 0] + SIGN[side] * BONES[1 + side] * left
        upper, lower = BONES[4 + side], BONES[7 + side]
        reach = ankles[:, side] - hip
        distance = np.linalg.norm(reach, axis=1, keepdims=True)
        direction = reach / distance
        distance = np.clip(distance, 0.25, 0.999 * (upper + lower))
        along = (upper**2 - lower**2 + distance**2) / (2 * distance)
        bend = np.sqrt(np.maximum(upper**2 - along**2, 0))
        pole = ahead - (ahead * direction).sum(axis=1, keepdims=True) * direction
        pole /= np.linalg.norm(pole, axis=1, keepdims=True)
        knee = hip + along * direction + bend * pole
        ankle = hip + distance * direction
        foot_ahead = _frame(feet_yaw[:, side])[2]
        lifted = np.clip((ankle[:, 1:2] - ANKLE_HEIGHT) / 0.3, 0, 1)
        drop = BONES[10 + side]
        slope = np.minimum((ANKLE_HEIGHT - 0.01) / drop + 0.25 * lifted, 0.75)
        toe = ankle + drop * (np.sqrt(1 - slope**2) * foot_ahead - slope * up)
        for joint, place in zip((1, 4, 7, 10), (hip, knee, ankle, toe), strict=True):
            joints[:, joint + side] = place


def _place_trunk(
    joints: np.ndarray,
    axes: tuple[np.ndarray, ...],
    controls: Controls,
    swing: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Spine, head and collars; the trunk leans forward and twists against the legs."""
    left, up, ahead = axes
    t = np.arange(controls.frames) / FPS
    sway = 0.015 * np.sin(2 * np.pi * 0.3 * t + rng.uniform(0, 6.28))
    for joint, parent, share in ((3, 0, 0.6), (6, 3, 0.9), (9, 6, 1.0), (12, 9, 1.1)):
        angle = (controls.lean * share)[:, None]
        direction = np.cos(angle) * up + np.sin(angle) * ahead + sway[:, None] * left
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        joints[:, joint] = joints[:, parent] + BONES[joint] * direction
    nod = (0.35 + controls.lean)[:, None]
    joints[:, 15] = joints[:, 12] + BONES[15] * (np.cos(nod) * up + np.sin(nod) * ahead)
    angle = controls.lean[:, None]
    chest_up = np.cos(angle) * up + np.sin(angle) * ahead
    twist = (0.25 * swing)[:, None]
    across = np.cos(twist) * left + np.sin(twist) * ahead
    for side in (0, 1):
        collar = 0.45 * SIGN[side] * across + 0.89 * chest_up
        joints[:, 13 + side] = joints[:, 9] + BONES[13 + side] * _unit(collar)
        shoulder = SIGN[side] * across - 0.1 * chest_up
        joints[:, 16 + side] = joints[:, 13 + side] + BONES[16 + side] * _unit(shoulder)


def _place_arms(
    joints: np.ndarray, axes: tuple[np.ndarray, ...], controls: Controls, swing: np.ndarray
) -> None:
    """Upper arm by flexion and abduction; the forearm bends forward and sways sideways."""
    left, up, ahead = axes
    for side in (0, 1):
        free = 1 - np.clip(np.abs(controls.flex[:, side]) + controls.abduct[:, side], 0, 1)
        flex = controls.flex[:, side] - SIGN[side] * swing * free
        abduct = controls.abduct[:, side] + 0.12
        bend = controls.elbow[:, side] + 0.25 + 0.3 * np.abs(swing) * free
        outward = SIGN[side] * left
        upper = _arm_direction(flex, abduct, outward, up, ahead)
        fore = _arm_direction(flex + bend, abduct + controls.sway[:, side], outward, up, ahead)
        joints[:, 18 + side] = joints[:, 16 + side] + BONES[18 + side] * upper
        joints[:, 20 + side] = joints[:, 18 + side] + BONES[20 + side] * fore


def _arm_direction(
    flex: np.ndarray, abduct: np.ndarray, outward: np.ndarray, up: np.ndarray, ahead: np.ndarray
) -> np.ndarray:
    """Unit direction ``[T, 3]`` of an arm segment."""
    flex, abduct = flex[:, None], abduct[:, None]
    in_plane = np.sin(flex) * ahead - np.cos(flex) * up
    return np.cos(abduct) * in_plane + np.sin(abduct) * outward


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)
