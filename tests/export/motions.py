"""Rigged motions for the tests of files."""

from data_loaders.skeleton import HUMANML
from export.body_plan import HUMANML_PLAN
from export.recover import rig_motion
from export.rig import RiggedMotion
from tests.data_loaders.bodies import moving


def walk(frames: int = 41, seed: int = 0) -> RiggedMotion:
    """Somebody who wanders and swings every bone, at 20 frames per second."""
    return rig_motion(moving(frames, seed), HUMANML_PLAN, HUMANML.fps)
