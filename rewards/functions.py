"""Rewards that are functions of one motion and its caption: facts, skating, jerk, and one's own.

    --reward facts              share of what the caption states that holds on the joints
    --reward skating            1 - share of the frames in which a planted foot slides
    --reward jerk               1 / (1 + mean jerk / 100 m/s^3)
    --reward my_rewards:calm    the function `calm` of my_rewards.py (docs/rewards.md)

They have no gradient, and no network: --reward_weights mixes them with TMR.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from data_loaders.annotations import Annotations
from data_loaders.facts import holds, measure
from data_loaders.features import features_to_joints
from data_loaders.motion_quality import foot_skating, jerk
from data_loaders.normalizer import Statistics
from data_loaders.skeleton import HUMANML, Skeleton
from model.seam import Samples
from utils.errors import UserError

# joints [T, J, 3] in metres (Y up), the caption, frames per second -> a number in [0, 1]
MotionFunction = Callable[[np.ndarray, str, float], float]

NAMES = ("facts", "skating", "jerk")
TYPICAL_JERK = 100.0  # m/s^3, at which the reward of jerk is 1/2
MOMENTS = 16  # of a motion that its embedding holds


@dataclass(frozen=True)
class FunctionReward:
    """A `MotionFunction` as a reward of raw motions.

    stats: of the dataset, for `embed`; None where nothing is trained.
    """

    name: str
    function: MotionFunction
    skeleton: Skeleton
    stats: Statistics | None = None

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        """Rewards ``[B]``; 0 for a motion with NaN or infinity.

        Raises UserError when the function returns anything but a number in [0, 1].
        """
        motions = zip(raw.x.float().cpu(), raw.frames.tolist(), captions, strict=True)
        scores = [self._score(motion[:length], caption) for motion, length, caption in motions]
        return torch.tensor(scores, dtype=torch.float32, device=raw.x.device)

    def _score(self, features: Tensor, caption: str) -> float:
        if not features.isfinite().all():
            return 0.0
        joints = features_to_joints(features, self.skeleton).numpy() / self.skeleton.units_per_metre
        score = self.function(joints, caption, self.skeleton.fps)
        if not isinstance(score, (int, float, np.number)) or not 0 <= score <= 1:
            raise UserError(f"--reward {self.name} returned {score!r}; rewards lie in [0, 1]")
        return float(score)

    def embed(self, raw: Samples) -> Tensor:
        """Normalised features at `MOMENTS` even moments, one after the other: ``[B, 16 D]``."""
        if self.stats is None:
            raise ValueError(f"the reward {self.name} was loaded without statistics")
        share = torch.linspace(0, 1, MOMENTS, device=raw.x.device)
        moments = ((raw.frames[:, None] - 1) * share).round().long()
        index = moments[..., None].expand(-1, -1, raw.x.shape[-1])
        return self.stats.normalize(raw.x.float()).gather(1, index).flatten(1)

    def check(self, skeleton: Skeleton | None) -> None:
        """Raises UserError for what are no motions of the skeleton that it was made for."""
        if skeleton != self.skeleton:
            found = "other samples" if skeleton is None else f"{skeleton.name} motions"
            raise UserError(f"--reward {self.name} reads {self.skeleton.name} motions, not {found}")


@dataclass(frozen=True)
class StatedFacts:
    """Share of the facts of a caption that hold; 1 where it states none.

    The field's fact oracle measures on the 22 joints of HumanML3D.
    """

    notes: Annotations

    def __call__(self, joints: np.ndarray, caption: str, fps: float) -> float:
        note = self.notes.captions.get(caption)
        if note is None or not note.facts:
            return 1.0
        measured = measure(joints, fps)
        return sum(holds(fact, measured) for fact in note.facts) / len(note.facts)


def find_function(
    name: str, skeleton: Skeleton, notes: Annotations | None = None
) -> MotionFunction:
    """One of `NAMES`, or a ``module:function`` of the user.

    Raises UserError for a name that is neither, and for what the function lacks.
    """
    if name == "facts":
        if notes is None or skeleton is not HUMANML:
            raise UserError(
                "--reward facts needs a dataset of 22 joints that says what its captions state "
                "(annotations.json); name one with --dataset"
            )
        return StatedFacts(notes)
    if name == "skating":
        return lambda joints, caption, fps: 1.0 - foot_skating(joints, skeleton)
    if name == "jerk":
        return lambda joints, caption, fps: 1.0 / (1.0 + jerk(joints, fps) / TYPICAL_JERK)
    return import_function(name)


def import_function(name: str) -> MotionFunction:
    """The function ``module:function``. Raises UserError when it is missing or takes other things
    than joints, caption and frames per second."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--reward {name} cannot be imported ({error})") from None
    try:
        inspect.signature(function).bind(np.zeros((1, 1, 3)), "", math.nan)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--reward {name} must be a function of (joints, caption, fps) ({error})"
        ) from None
    return function
