"""The seam between preference optimisation and any reward: a frozen judge of samples."""

from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from data_loaders.skeleton import Skeleton
from model.seam import Samples
from utils.errors import UserError


class Reward(Protocol):
    """Scores raw samples; it owns its normalisation and reads nothing beyond a length."""

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        """Rewards ``[B]`` in [0, 1]."""

    def embed(self, raw: Samples) -> Tensor:
        """Embeddings ``[B, d]``, whose cosine says how alike two samples are."""

    def check(self, skeleton: Skeleton | None) -> None:
        """Raises UserError when it cannot read raw samples of `skeleton` (None: not motions)."""


@runtime_checkable
class DifferentiableReward(Reward, Protocol):
    """A reward that says which way a sample would be better."""

    def score_with_gradient(self, raw: Samples, captions: list[str]) -> Tensor:
        """Rewards ``[B]`` in [0, 1], differentiable in the samples and in nothing else."""


def differentiable(reward: Reward) -> DifferentiableReward:
    """The reward itself. Raises UserError for one that has no gradient."""
    if isinstance(reward, DifferentiableReward):
        return reward
    raise UserError(
        f"the reward {type(reward).__name__} has no gradient that could reach the generator; "
        "use --reward tmr"
    )


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """(cos + 1) / 2 of paired rows ``[B, d]`` -> ``[B]``."""
    return (F.cosine_similarity(a, b, dim=-1, eps=1e-12) + 1) / 2


def check_width(name: str, width: int, skeleton: Skeleton | None, remedy: str) -> None:
    """Raises UserError where a reward of `width` features meets other raw samples."""
    found = "other samples" if skeleton is None else f"{skeleton.name} motions"
    if skeleton is None or width != skeleton.feature_dim:
        features = "none" if skeleton is None else str(skeleton.feature_dim)
        raise UserError(f"{name} takes {width} features, {found} have {features}; {remedy}")
