"""Which joints of a motion capture skeleton stand for the 22 joints of HumanML3D.

A map gives each HumanML3D joint a source joint or a weighted mix of source joints, whose global
positions are averaged. Built-in maps are chosen by the joint names of a file; a YAML file can
give another one (docs/bvh.md):

    pelvis: Hips
    spine1: {Hips: 0.4, Spine: 0.6}
    left_hip: LeftThigh
    left_foot: LeftAnkle_end        # the end site of LeftAnkle
    ...
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from data_loaders.skeleton import HUMANML
from utils.bounded import read_yaml
from utils.errors import UserError


@dataclass(frozen=True)
class JointMap:
    """`sources` holds, for each HumanML3D joint name, {source joint name: weight}, sum 1."""

    name: str
    sources: dict[str, dict[str, float]]

    def missing(self, joint_names: Sequence[str]) -> list[str]:
        """Source joints that a file with these joint names does not have."""
        present = {short_name(name) for name in joint_names}
        needed = {joint for mix in self.sources.values() for joint in mix}
        return sorted(joint for joint in needed if short_name(joint) not in present)

    def apply(self, positions: np.ndarray, joint_names: Sequence[str]) -> np.ndarray:
        """Positions [T, S, 3] of a file's joints -> [T, 22, 3] in HumanML3D order.

        Raises UserError when the map names joints that the file does not have.
        """
        if absent := self.missing(joint_names):
            raise UserError(
                f"the joint map {self.name} names {', '.join(absent)}, which the file does not "
                f"have. Joints of the file: {', '.join(joint_names)}"
            )
        index = {short_name(name): i for i, name in reversed(list(enumerate(joint_names)))}
        joints = np.zeros((len(positions), len(HUMANML.joint_names), 3))
        for row, target in enumerate(HUMANML.joint_names):
            for joint, weight in self.sources[target].items():
                joints[:, row] += weight * positions[:, index[short_name(joint)]]
        return joints


def short_name(joint: str) -> str:
    """The joint name without a rig's prefix: ``mixamorig:Hips`` and ``mixamorig1_Hips`` -> Hips."""
    return re.sub(r"^(.*:|mixamorig\d*_?)", "", joint)


def choose_joint_map(joint_names: Sequence[str]) -> JointMap:
    """The first built-in map whose joints are all present.

    Raises UserError with the file's joint names when there is none.
    """
    for joint_map in BUILT_IN:
        if not joint_map.missing(joint_names):
            return joint_map
    closest = min(BUILT_IN, key=lambda joint_map: len(joint_map.missing(joint_names)))
    raise UserError(
        f"no built-in joint map ({', '.join(m.name for m in BUILT_IN)}) fits; the closest, "
        f"{closest.name}, misses {', '.join(closest.missing(joint_names))}; give --joint_map "
        f"FILE.yaml (docs/bvh.md). Joints of the file: {', '.join(joint_names)}"
    )


def load_joint_map(path: str | Path) -> JointMap:
    """Read a YAML joint map. Raises UserError when it is not a complete map of the 22 joints."""
    content = read_yaml(Path(path), f"--joint_map {path}")
    if not isinstance(content, dict):
        raise UserError(f"--joint_map {path} must hold `humanml_joint: source_joint` lines")
    expected = set(HUMANML.joint_names)
    for problem, names in (
        ("misses", sorted(expected - set(content))),
        ("has unknown joints", sorted(str(name) for name in set(content) - expected)),
    ):
        if names:
            raise UserError(f"--joint_map {path} {problem}: {', '.join(names)}")
    sources = {target: _mix(f"--joint_map {path}: {target}", content[target]) for target in content}
    return JointMap(name=Path(path).name, sources=sources)


def _mix(where: str, value: Any) -> dict[str, float]:
    if isinstance(value, str):
        return {value: 1.0}
    if not isinstance(value, dict) or not value:
        raise UserError(f"{where} must be a joint name or a mix such as {{Hips: 0.4, Spine: 0.6}}")
    try:
        mix = {str(joint): float(weight) for joint, weight in value.items()}
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: weights must be numbers") from None
    if not all(0 <= weight <= 1 for weight in mix.values()):
        raise UserError(f"{where}: weights must lie between 0 and 1")
    if abs(sum(mix.values()) - 1) > 1e-3:
        raise UserError(f"{where}: weights sum to {sum(mix.values()):g}, not to 1")
    return mix


@dataclass(frozen=True)
class Limbs:
    """Source joints of the left leg and arm, by the HumanML3D joints that they stand for."""

    hip: str
    knee: str
    ankle: str
    foot: str
    collar: str
    shoulder: str
    elbow: str
    wrist: str

    def both_sides(self, to_right: Callable[[str], str]) -> dict[str, str]:
        """Sources of the limb joints of both sides; `to_right` makes a right name of a left one."""
        left = {field.name: getattr(self, field.name) for field in fields(self)}
        return {f"left_{joint}": source for joint, source in left.items()} | {
            f"right_{joint}": to_right(source) for joint, source in left.items()
        }


def _joint_map(name: str, **sources: str | dict[str, float]) -> JointMap:
    ordered = {target: _mix(f"{name}: {target}", sources[target]) for target in HUMANML.joint_names}
    return JointMap(name, ordered)


def _left_to_right(name: str) -> str:
    return name.replace("Left", "Right")


# Spine weights put the joints near 0.24, 0.50 and 0.60 of the way from pelvis to neck, where the
# reference skeleton has them.
BANDAI_NAMCO = _joint_map(
    "bandai-namco",
    pelvis="Hips",
    spine1={"Hips": 0.4, "Spine": 0.6},
    spine2={"Spine": 0.5, "Chest": 0.5},
    spine3="Chest",
    neck="Neck",
    head="Head",
    **Limbs(
        hip="UpperLeg_L",
        knee="LowerLeg_L",
        ankle="Foot_L",
        foot="Toes_L",
        collar="Shoulder_L",
        shoulder="UpperArm_L",
        elbow="LowerArm_L",
        wrist="Hand_L",
    ).both_sides(lambda name: name.replace("_L", "_R")),
)

_LEG_AND_ARM = Limbs(
    hip="LeftUpLeg",
    knee="LeftLeg",
    ankle="LeftFoot",
    foot="LeftToeBase",
    collar="LeftShoulder",
    shoulder="LeftArm",
    elbow="LeftForeArm",
    wrist="LeftHand",
)
# The cgspeed conversion puts Neck, LeftShoulder and RightShoulder on top of Spine1; bones of length
# zero have no direction, so the neck is Neck1 and the collars lie on the way to the shoulders.
CMU = _joint_map(
    "cmu",
    pelvis="Hips",
    spine1={"Hips": 0.35, "Spine": 0.65},
    spine2={"Spine": 0.6, "Spine1": 0.4},
    spine3={"Spine": 0.3, "Spine1": 0.7},
    neck="Neck1",
    head="Head",
    **_LEG_AND_ARM.both_sides(_left_to_right)
    | {
        "left_collar": {"LeftShoulder": 0.6, "LeftArm": 0.4},
        "right_collar": {"RightShoulder": 0.6, "RightArm": 0.4},
    },
)


def _l_to_r(name: str) -> str:
    return "r" + name.removeprefix("l")


# The daz-friendly conversion of CMU has one body for everybody, its hip joint below the thighs, and
# toes that are end sites.
CMU_DAZ = _joint_map(
    "cmu-daz",
    pelvis={"hip": 0.45, "abdomen": 0.55},
    spine1={"abdomen": 0.9, "chest": 0.1},
    spine2="chest",
    spine3={"chest": 0.8, "neck": 0.2},
    neck="neck",
    head="head",
    **Limbs(
        hip="lThigh",
        knee="lShin",
        ankle="lFoot",
        foot="lFoot_end",
        collar="lCollar",
        shoulder="lShldr",
        elbow="lForeArm",
        wrist="lHand",
    ).both_sides(_l_to_r)
    | {
        "left_collar": {"lCollar": 0.6, "lShldr": 0.4},
        "right_collar": {"rCollar": 0.6, "rShldr": 0.4},
    },
)
# ASF/AMC as CMU records it. A joint is the end of the bone of its name; the forearm is two bones.
CMU_ASF = _joint_map(
    "cmu-asf",
    pelvis="root",
    spine1={"root": 0.1, "lowerback": 0.9},
    spine2={"lowerback": 0.1, "upperback": 0.9},
    spine3={"upperback": 0.7, "thorax": 0.3},
    neck="lowerneck",
    head="upperneck",
    **Limbs(
        hip="lhipjoint",
        knee="lfemur",
        ankle="ltibia",
        foot="lfoot",
        collar="lclavicle",
        shoulder="lclavicle",
        elbow="lhumerus",
        wrist="lwrist",
    ).both_sides(_l_to_r)
    | {
        "left_collar": {"thorax": 0.6, "lclavicle": 0.4},
        "right_collar": {"thorax": 0.6, "rclavicle": 0.4},
    },
)


def _three_part_spine(name: str, foot: str) -> JointMap:
    limbs = _LEG_AND_ARM.both_sides(_left_to_right)
    limbs |= {"left_foot": foot, "right_foot": _left_to_right(foot)}
    spine = {"spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2"}
    return _joint_map(name, pelvis="Hips", neck="Neck", head="Head", **spine, **limbs)


MIXAMO = _three_part_spine("mixamo", foot="LeftToeBase")
LAFAN1 = _three_part_spine("lafan1", foot="LeftToe")
NEURON = _three_part_spine("neuron", foot="LeftFoot_end")

_HIP_AND_COLLAR = Limbs(
    hip="LeftHip",
    knee="LeftKnee",
    ankle="LeftAnkle",
    foot="LeftToe",
    collar="LeftCollar",
    shoulder="LeftShoulder",
    elbow="LeftElbow",
    wrist="LeftWrist",
)
XSENS = _joint_map(
    "xsens",
    pelvis="Hips",
    spine1={"Chest": 0.8, "Chest2": 0.2},
    spine2={"Chest2": 0.4, "Chest3": 0.6},
    spine3={"Chest3": 0.8, "Chest4": 0.2},
    neck="Neck",
    head="Head",
    **_HIP_AND_COLLAR.both_sides(_left_to_right),
)
# One joint between hips and neck, a little above the middle; toes are end sites.
CLASSIC = _joint_map(
    "classic",
    pelvis="Hips",
    spine1={"Hips": 0.6, "Chest": 0.4},
    spine2={"Hips": 0.15, "Chest": 0.85},
    spine3={"Chest": 0.95, "Neck": 0.05},
    neck="Neck",
    head="Head",
    **_HIP_AND_COLLAR.both_sides(_left_to_right)
    | {"left_foot": "LeftAnkle_end", "right_foot": "RightAnkle_end"},
)
# What `sample.export` writes by default.
SMPL = _joint_map("smpl", **{name: name for name in HUMANML.joint_names})
BUILT_IN = (BANDAI_NAMCO, CMU, CMU_DAZ, CMU_ASF, MIXAMO, LAFAN1, NEURON, XSENS, CLASSIC, SMPL)
