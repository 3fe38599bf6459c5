"""Which joints of a motion capture skeleton stand for the 22 joints of HumanML3D.

A map gives each HumanML3D joint a source joint or a weighted mix of source joints, whose global
positions are averaged. Built-in maps are chosen by the joint names of a file; a YAML file can
give another one:

    pelvis: Hips
    spine1: {Hips: 0.4, Spine: 0.6}
    left_hip: LeftThigh
    ...
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_loaders.skeleton import HUMANML
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
        """Positions [T, S, 3] of a file's joints -> [T, 22, 3] in HumanML3D order."""
        index = {short_name(name): i for i, name in reversed(list(enumerate(joint_names)))}
        weights = np.zeros((len(HUMANML.joint_names), len(joint_names)))
        for row, target in enumerate(HUMANML.joint_names):
            for joint, weight in self.sources[target].items():
                weights[row, index[short_name(joint)]] += weight
        return weights @ positions


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
        f"FILE.yaml. Joints of the file: {', '.join(joint_names)}"
    )


def load_joint_map(path: str | Path) -> JointMap:
    """Read a YAML joint map. Raises UserError when it is not a complete map of the 22 joints."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--joint_map {path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--joint_map {path} is not valid YAML ({reason})") from None
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
    return JointMap(name=Path(path).stem, sources=sources)


def _mix(where: str, value: Any) -> dict[str, float]:
    if isinstance(value, str):
        return {value: 1.0}
    if not isinstance(value, dict) or not value:
        raise UserError(f"{where} must be a joint name or a mix such as {{Hips: 0.4, Spine: 0.6}}")
    try:
        mix = {str(joint): float(weight) for joint, weight in value.items()}
    except (TypeError, ValueError):
        raise UserError(f"{where}: weights must be numbers") from None
    if abs(sum(mix.values()) - 1) > 1e-3:
        raise UserError(f"{where}: weights sum to {sum(mix.values()):g}, not to 1")
    return mix


def _sided(side: str, hip: str, knee: str, ankle: str, foot: str, *arm: str) -> dict[str, str]:
    targets = ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")
    return {f"{side}_{t}": s for t, s in zip(targets, (hip, knee, ankle, foot, *arm), strict=True)}


def _sides(left: Sequence[str], old: str, new: str) -> dict[str, str]:
    """Limb joints of both sides, given the left ones and how a left name becomes a right one."""
    right = [name.replace(old, new) for name in left]
    return _sided("left", *left) | _sided("right", *right)


def _joint_map(name: str, **sources: str | dict[str, float]) -> JointMap:
    ordered = {target: _mix(f"{name}: {target}", sources[target]) for target in HUMANML.joint_names}
    return JointMap(name, ordered)


_BANDAI_LIMB = (
    *("UpperLeg_L", "LowerLeg_L", "Foot_L", "Toes_L"),
    *("Shoulder_L", "UpperArm_L", "LowerArm_L", "Hand_L"),
)
_LEFT_LIMB = (
    *("LeftUpLeg", "LeftLeg", "LeftFoot", "LeftToeBase"),
    *("LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand"),
)
_LEFT_LIMB_LAFAN = tuple(name.replace("ToeBase", "Toe") for name in _LEFT_LIMB)
_FIVE_PART_SPINE = {
    "pelvis": "Hips",
    "spine1": "Spine",
    "spine2": "Spine1",
    "spine3": "Spine2",
    "neck": "Neck",
    "head": "Head",
}

# Spine weights put the joints near 0.23, 0.50 and 0.60 of the way from pelvis to neck, where the
# reference skeleton has them.
BANDAI_NAMCO = _joint_map(
    "bandai-namco",
    pelvis="Hips",
    spine1={"Hips": 0.4, "Spine": 0.6},
    spine2={"Spine": 0.5, "Chest": 0.5},
    spine3="Chest",
    neck="Neck",
    head="Head",
    **_sides(_BANDAI_LIMB, "_L", "_R"),
)
# The cgspeed conversion puts Neck, LeftShoulder and RightShoulder on top of Spine1; bones of length
# zero have no direction, so the neck is Neck1 and the collars lie on the way to the shoulders.
CMU = _joint_map(
    "cmu",
    **{
        "pelvis": "Hips",
        "spine1": {"Hips": 0.35, "Spine": 0.65},
        "spine2": {"Spine": 0.6, "Spine1": 0.4},
        "spine3": {"Spine": 0.3, "Spine1": 0.7},
        "neck": "Neck1",
        "head": "Head",
        **_sides(_LEFT_LIMB, "Left", "Right"),
        "left_collar": {"LeftShoulder": 0.6, "LeftArm": 0.4},
        "right_collar": {"RightShoulder": 0.6, "RightArm": 0.4},
    },
)
MIXAMO = _joint_map("mixamo", **_FIVE_PART_SPINE, **_sides(_LEFT_LIMB, "Left", "Right"))
LAFAN1 = _joint_map("lafan1", **_FIVE_PART_SPINE, **_sides(_LEFT_LIMB_LAFAN, "Left", "Right"))
BUILT_IN = (BANDAI_NAMCO, CMU, MIXAMO, LAFAN1)
