"""Hand-made motions ``[T, 22, 3]`` of which it is known what happens in them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from data_loaders.facts import ANKLES, FEET, KNEES, PELVIS, SHOULDERS, WRISTS, Fact
from data_loaders.skeleton import HUMANML
from tests.data_loaders.bodies import upright

FRAMES = 80  # 4 s
LEFT, RIGHT = 0, 1
LEGS = [*KNEES, *ANKLES, *FEET]
ABOVE_LEGS = [joint for joint in range(HUMANML.num_joints) if joint not in LEGS]


@dataclass(frozen=True)
class Scene:
    """A motion, facts that hold of it, and facts that do not."""

    joints: Tensor
    true: tuple[Fact, ...]
    false: tuple[Fact, ...]


def facts(**values) -> tuple[Fact, ...]:
    return tuple(Fact(kind, value) for kind, value in values.items())


def bumps(count: int, frames: int = FRAMES) -> Tensor:
    """`count` equal smooth rises from 0 to 1 and back ``[T]``."""
    place = torch.arange(frames, dtype=torch.float64) / (frames - 1) * count
    return (1 - torch.cos(2 * math.pi * place)) / 2


def ramp(frames: int = FRAMES) -> Tensor:
    """0 for half a second, then evenly to 1, which stays for half a second ``[T]``."""
    time = torch.arange(frames, dtype=torch.float64)
    return ((time - 10) / (frames - 21)).clamp(0, 1)


def travel(x: float, z: float, yaw: float = 0.0, frames: int = FRAMES) -> Tensor:
    """Glide from the origin to (x, z) while facing `yaw`."""
    path = ramp(frames)[:, None] * torch.tensor([x, 0.0, z], dtype=torch.float64)
    return upright(frames, path, torch.full((frames,), yaw, dtype=torch.float64))


def turn(degrees: float) -> Tensor:
    return upright(FRAMES, yaw=ramp() * math.radians(degrees))


def raise_hand(side: int, count: int, height: float) -> Tensor:
    """The wrist goes from beside the hip to `height` metres over its shoulder, past the elbow."""
    joints = upright(FRAMES)
    joints[:, WRISTS[side], 0] += (0.15, -0.15)[side] * bumps(count)
    arm = joints[:, SHOULDERS[side], 1] - joints[:, WRISTS[side], 1]
    joints[:, WRISTS[side], 1] += bumps(count) * (arm + height)
    return joints


def wave(side: int, strokes: int) -> Tensor:
    """The hand is up all the time and goes `strokes` times from one side to the other."""
    joints = upright(FRAMES)
    joints[:, WRISTS[side], 1] = joints[:, SHOULDERS[side], 1] + 0.2
    joints[:, WRISTS[side], 0] -= 0.15 * torch.cos(torch.linspace(0, 1, FRAMES) * math.pi * strokes)
    return joints


def jump(count: int, height: float) -> Tensor:
    path = torch.zeros(FRAMES, 3, dtype=torch.float64)
    path[:, 1] = height * bumps(count)
    return upright(FRAMES, path)


def kick(side: int, count: int, ahead: float) -> Tensor:
    joints = upright(FRAMES)
    for joint in (ANKLES[side], FEET[side]):
        joints[:, joint, 1] += 0.5 * bumps(count)
        joints[:, joint, 2] += ahead * bumps(count)
    return joints


def punch(side: int, count: int) -> Tensor:
    joints = upright(FRAMES)
    wrist, shoulder = joints[:, WRISTS[side]], joints[:, SHOULDERS[side]]
    wrist[:, 1:] = shoulder[:, 1:]
    wrist[:, 2] += 0.1 + 0.4 * bumps(count)
    return joints


def lower(depth: Tensor) -> Tensor:
    """All above the knees sinks by `depth` ``[T]`` metres; the feet stay."""
    joints = upright(len(depth))
    joints[:, ABOVE_LEGS, 1] -= depth[:, None]
    return joints


def kneel() -> Tensor:
    joints = lower(0.4 * bumps(1))
    joints[:, KNEES[RIGHT], 1] -= 0.35 * bumps(1)
    return joints


def bow(count: int, degrees: float) -> Tensor:
    """The trunk tips forward around the pelvis."""
    joints = upright(FRAMES)
    angle = math.radians(degrees) * bumps(count)[:, None]
    upper = [joint for joint in ABOVE_LEGS if joint not in (0, 1, 2)]
    offset = joints[:, upper] - joints[:, PELVIS, None]
    _, y, z = offset.unbind(-1)
    offset[..., 1] = angle.cos() * y - angle.sin() * z
    offset[..., 2] = angle.sin() * y + angle.cos() * z
    joints[:, upper] = joints[:, PELVIS, None] + offset
    return joints


def throw(side: int) -> Tensor:
    joints = raise_hand(1 - side, 1, 0.3)
    joints[40:44, WRISTS[side], 2] += torch.tensor([0.2, 0.5, 0.5, 0.2])
    return joints


def both(first: Tensor, second: Tensor, parts: list[int]) -> Tensor:
    """`first` with some joints of `second`."""
    joints = first.clone()
    joints[:, parts] = second[:, parts]
    return joints


SCENES = {
    "stand": Scene(
        upright(FRAMES),
        facts(travel="in place", hand_up="none", jump_count=0, squat_count=0, duration=4.0),
        (*facts(turn_side="left", kneel="yes", sit="yes", duration=2.0), Fact("speed", "fast")),
    ),
    "turn left": Scene(
        turn(90),
        facts(turn_side="left", turn_angle=90, travel="in place"),
        facts(turn_side="right", turn_angle=180),
    ),
    "turn right": Scene(
        turn(-180), facts(turn_side="right", turn_angle=180), facts(turn_side="left", turn_angle=90)
    ),
    "full circle": Scene(
        turn(360), facts(turn_side="left", turn_angle=360), facts(turn_side="right", turn_angle=0)
    ),
    "look aside": Scene(turn(20), (), facts(turn_side="left", turn_angle=90)),
    "walk": Scene(
        travel(0, 4),
        facts(travel="forward", distance=4.0, speed="normal"),
        (*facts(travel="backward", distance=2.0, speed="fast"), Fact("travel", "in place")),
    ),
    "run": Scene(travel(0, 10), facts(travel="forward", speed="fast"), facts(speed="normal")),
    "walk back": Scene(
        travel(0, -2), facts(travel="backward", speed="slow"), facts(travel="forward")
    ),
    "step left": Scene(travel(2, 0), facts(travel="left"), facts(travel="right")),
    "step right, facing sideways": Scene(
        travel(0, 2, yaw=math.pi / 2), facts(travel="right"), facts(travel="forward")
    ),
    "sway": Scene(travel(0.2, 0.2), facts(travel="in place"), facts(travel="forward")),
    "raise left": Scene(
        raise_hand(LEFT, 2, 0.5),
        facts(hand_up="left", raise_count=2, above_head="left"),
        facts(hand_up="both", raise_count=1, above_head="both"),
    ),
    "raise right a little": Scene(
        raise_hand(RIGHT, 1, 0.05),
        facts(hand_up="right", above_head="none"),
        facts(above_head="right", hand_up="left"),
    ),
    "raise both": Scene(
        both(raise_hand(LEFT, 3, 0.5), raise_hand(RIGHT, 3, 0.5), [WRISTS[RIGHT]]),
        facts(hand_up="both", above_head="both", raise_count=3),
        facts(hand_up="left"),
    ),
    "wave right": Scene(
        wave(RIGHT, 6),
        facts(wave_side="right", wave_strokes=6, hand_up="right"),
        facts(wave_side="left", wave_strokes=12),
    ),
    "wave low": Scene(wave(LEFT, 2), facts(wave_side="none"), facts(wave_side="left")),
    "jump twice": Scene(jump(2, 0.3), facts(jump_count=2), facts(jump_count=1)),
    "stand on tiptoe": Scene(jump(2, 0.05), facts(jump_count=0), facts(jump_count=2)),
    "kick left": Scene(
        kick(LEFT, 3, 0.5),
        facts(kick_side="left", kick_count=3, jump_count=0),
        facts(kick_side="right", kick_count=1),
    ),
    "heel to the back": Scene(kick(LEFT, 1, -0.5), facts(kick_side="none"), facts(kick_count=1)),
    "punch right": Scene(
        punch(RIGHT, 3),
        facts(punch_side="right", punch_count=3),
        facts(punch_side="left", punch_count=1),
    ),
    "squat": Scene(
        lower(0.4 * bumps(3)),
        facts(squat_count=3, jump_count=0),
        (*facts(squat_count=1, sit="yes"), Fact("kneel", "yes")),
    ),
    "sit": Scene(
        lower(0.35 * ramp()), facts(sit="yes", squat_count=1), facts(kneel="yes", squat_count=0)
    ),
    "kneel": Scene(kneel(), facts(kneel="yes"), facts(sit="yes")),
    "bow": Scene(bow(2, 60), facts(bow_count=2, squat_count=0), facts(bow_count=1)),
    "nod": Scene(bow(2, 30), facts(bow_count=0), facts(bow_count=2)),
    "throw left": Scene(throw(LEFT), facts(throw_side="left"), facts(throw_side="right")),
}
