"""BVH files that tests write: one body and one motion, in the joint names of several rigs."""

from dataclasses import dataclass

import numpy as np

Offset = tuple[float, float, float]


@dataclass(frozen=True)
class Joint:
    """offset: from the parent in centimetres, Y up. end: the offset of its end site."""

    name: str
    parent: str
    offset: Offset
    end: Offset = (0.0, 0.0, 5.0)


@dataclass(frozen=True)
class Rig:
    """swinging: the left upper arm, which moves."""

    joints: list[Joint]
    swinging: str


def make_rig(spine: dict[str, float], leg: str, arm: str) -> Rig:
    """spine: joints from hips to neck, and their heights above the hips in centimetres. leg, arm:
    joints of the left side; the toes of a leg of three are an end site.

    Hips, neck, head and limbs of all rigs are at the same places.
    """
    hips, *back = spine
    *_, chest, neck = back
    joints = [Joint(hips, "", (0, 90, 0))]
    for lower, upper in zip(spine, back, strict=False):
        joints.append(Joint(upper, lower, (0, spine[upper] - spine[lower], 0)))
    joints.append(Joint("Head", neck, (0, 10, 3)))
    leg_offsets = [(9, -5, 0), (0, -40, 1), (0, -40, -1), (0, -5, 12)]
    arm_offsets = [(7, 44 - spine[chest], 0), (11, 1, 0), (5, -25, 1), (2, -24, 4)]
    for start, names, offsets in ((hips, leg, leg_offsets), (chest, arm, arm_offsets)):
        parent = start
        for name, offset in zip(names.split(), offsets, strict=False):
            joints.append(Joint(name, parent, offset, end=(0, -5, 12)))
            parent = name
    joints += [_right(joint) for joint in joints if "Left" in joint.name]
    return Rig(joints, swinging=arm.split()[1])


def _right(joint: Joint) -> Joint:
    (x, y, z), (a, b, c) = joint.offset, joint.end
    name, parent = (text.replace("Left", "Right") for text in (joint.name, joint.parent))
    return Joint(name, parent, (-x, y, z), (-a, b, c))


_ARM = "LeftShoulder LeftArm LeftForeArm LeftHand"
_COLLAR = "LeftCollar LeftShoulder LeftElbow LeftWrist"
_THREE = {"Hips": 0, "Spine": 12, "Spine1": 26, "Spine2": 32, "Neck": 52}
_FOUR = {"Hips": 0, "Chest": 10, "Chest2": 20, "Chest3": 29, "Chest4": 38, "Neck": 52}
_ONE = {"Hips": 0, "Chest": 30, "Neck": 52}
RIGS = {
    "mixamo": make_rig(_THREE, "LeftUpLeg LeftLeg LeftFoot LeftToeBase", _ARM),
    "lafan1": make_rig(_THREE, "LeftUpLeg LeftLeg LeftFoot LeftToe", _ARM),
    "neuron": make_rig(_THREE, "LeftUpLeg LeftLeg LeftFoot", _ARM),
    "xsens": make_rig(_FOUR, "LeftHip LeftKnee LeftAnkle LeftToe", _COLLAR),
    "classic": make_rig(_ONE, "LeftHip LeftKnee LeftAnkle", _COLLAR),
}


def bvh_text(
    rig: str = "mixamo",
    frames: int = 75,
    fps: float = 30,
    scale: float = 1.0,
    z_up: bool = False,
    prefix: str = "",
    turn: float = 60.0,
) -> str:
    """Somebody who walks forward, swings the left arm and turns by `turn` degrees a second."""
    joints, swinging = RIGS[rig].joints, RIGS[rig].swinging
    lines = ["HIERARCHY"]
    order: list[str] = []

    def axes(x: float, y: float, z: float) -> Offset:
        return (x * scale, -z * scale, y * scale) if z_up else (x * scale, y * scale, z * scale)

    def offset_line(offset: Offset) -> str:
        return "OFFSET " + " ".join(f"{value:.6f}" for value in axes(*offset))

    def open_joint(joint: Joint) -> None:
        order.append(joint.name)
        kind, place = ("JOINT", "") if joint.parent else ("ROOT", "Xposition Yposition Zposition ")
        lines.extend([f"{kind} {prefix}{joint.name}", "{", offset_line(joint.offset)])
        count, up = (1 if joint.parent else 4), ("Zrotation" if z_up else "Yrotation")
        lines.append(f"CHANNELS {count} {place}{up}")
        children = [child for child in joints if child.parent == joint.name]
        for child in children:
            open_joint(child)
        if not children:
            lines.extend(["End Site", "{", offset_line(joint.end), "}"])
        lines.append("}")

    open_joint(joints[0])
    lines += ["MOTION", f"Frames: {frames}", f"Frame Time: {1 / fps:.7f}"]
    for seconds in np.arange(frames) / fps:
        place = axes(3 * seconds, 90 + 2 * np.sin(6 * seconds), 80 * seconds)
        angles = dict.fromkeys(order, 0.0)
        angles |= {"Hips": turn * seconds, swinging: 40 * np.sin(5 * seconds)}
        lines.append(" ".join(f"{value:.6f}" for value in (*place, *angles.values())))
    return "\n".join(lines) + "\n"
