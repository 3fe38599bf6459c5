"""Single actions of the synthetic set, performed alone, for tests."""

import numpy as np

from data_loaders.facts import Fact
from prepare.procedural.actions import GESTURES, TRAVELS
from prepare.procedural.motion import FPS, Controls, solve

ACTIONS = TRAVELS | GESTURES


def perform(name: str, seed: int) -> tuple[np.ndarray, list[Fact]]:
    """Joints ``[T, 22, 3]`` of one action for some seconds, and all that may be stated of it."""
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(3.5, 6.0)
    controls = Controls(round(seconds * FPS) + 1)
    statement = ACTIONS[name](controls, 0.15, seconds - 0.15, rng)
    details = [fact for detail in statement.details for fact in detail.facts]
    return solve(controls, rng), [*statement.facts, *details]
