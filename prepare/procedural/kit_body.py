"""The procedural motion on KIT-ML's body: its 21 joints, its unit, its frame rate.

KIT's chains of odd names are mirrored: what it calls the left hip stands where the skeleton expects
the right one, so that the body faces +Z as HumanML3D's does.
"""

import numpy as np
import torch
from torch import Tensor

from data_loaders.features import ProcessedMotion, process_joints
from data_loaders.skeleton import HUMANML, KIT, bone_offsets

# KIT's body is one metre tall and measured in millimetres: its hips are at 560.
UNITS_PER_METRE = 600
MIDFOOT = 0.4  # KIT's extra joint of a foot, on the way from the ankle to the toes
# Joints of HumanML3D's body in the order of KIT's; the root and the midfeet are then moved.
NAMES = (
    "pelvis spine2 spine3 neck head right_shoulder right_elbow right_wrist left_shoulder "
    "left_elbow left_wrist right_hip right_knee right_ankle right_foot right_foot left_hip "
    "left_knee left_ankle left_foot left_foot"
)
SOURCES = tuple(HUMANML.joint_names.index(name) for name in NAMES.split())
SPINE = HUMANML.joint_names.index("spine1")


def kit_joints(joints: np.ndarray) -> np.ndarray:
    """``[T, 22, 3]`` in metres at 20 fps to KIT's ``[T', 21, 3]`` in its unit at 12.5 fps."""
    seconds = np.arange(len(joints)) / HUMANML.fps
    times = np.arange(int(seconds[-1] * KIT.fps) + 1) / KIT.fps
    rows = np.interp(times, seconds, np.arange(len(joints)))
    first = rows.astype(int)
    last, share = np.minimum(first + 1, len(joints) - 1), (rows - first)[:, None, None]
    moved = (1 - share) * joints[first] + share * joints[last]
    body = moved[:, SOURCES]
    # a root above the hips, as their bones would else point exactly against KIT's rest pose
    body[:, 0] = (body[:, 0] + moved[:, SPINE]) / 2
    for ankle, middle, toes in ((13, 14, 15), (18, 19, 20)):
        body[:, middle] = body[:, ankle] + MIDFOOT * (body[:, toes] - body[:, ankle])
    return body * UNITS_PER_METRE


def rest_offsets(joints: np.ndarray) -> Tensor:
    """Bones ``[21, 3]`` of one pose ``[21, 3]``, to which every motion is fitted."""
    return bone_offsets(torch.from_numpy(joints), KIT)


def process_kit(joints: np.ndarray) -> ProcessedMotion:
    """KIT's features of a motion ``[T, 22, 3]`` in metres, of the reference body."""
    body = kit_joints(joints)
    return process_joints(body, KIT, rest_offsets(body[0]))
