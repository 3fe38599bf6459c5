"""Joint names and order of the skeletons that other tools know."""

from collections.abc import Mapping

from data_loaders.skeleton import HUMANML, KIT, Skeleton
from utils.errors import UserError

Naming = Mapping[str, str]  # our joint name -> theirs, depth first


def _side(names: Mapping[str, str], side: str) -> Naming:
    return {f"{side.lower()}_{part}": f"{side}{name}" for part, name in names.items()}


def _three_part_spine(foot: str) -> Naming:
    """The names that motion capture and game engines share; `foot` is the ball of the foot."""
    leg = {"hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": foot}
    arm = {"collar": "Shoulder", "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand"}
    spine = {"spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2"}
    trunk = {"pelvis": "Hips", **_side(leg, "Left"), **_side(leg, "Right"), **spine}
    head = {"neck": "Neck", "head": "Head"}
    return {**trunk, **head, **_side(arm, "Left"), **_side(arm, "Right")}


def _own_names(skeleton: Skeleton) -> Naming:
    def below(joint: int) -> list[int]:
        children = [child for child, parent in enumerate(skeleton.parents) if parent == joint]
        return [joint, *(j for child in children for j in below(child))]

    return {name: name for name in (skeleton.joint_names[j] for j in below(0))}


LAFAN1 = _three_part_spine(foot="Toe")
MIXAMO = {ours: f"mixamorig:{theirs}" for ours, theirs in _three_part_spine("ToeBase").items()}
NAMINGS = {"smpl": _own_names(HUMANML), "lafan1": LAFAN1, "mixamo": MIXAMO}


def choose_naming(name: str, skeleton: Skeleton) -> Naming:
    """Raises UserError for a body of other joints than the names are for."""
    if skeleton is KIT:
        if name != "smpl":
            raise UserError(f"--skeleton {name} has 22 joints, KIT motions 21; leave it out")
        return _own_names(KIT)
    return NAMINGS[name]
