"""Several rewards as one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data_loaders.skeleton import Skeleton
from model.seam import Samples
from rewards.seam import Reward, differentiable
from utils.errors import UserError
from utils.options import option


@dataclass
class RewardListOptions:
    """What every script asks that scores with one reward or several."""

    reward: list[str] = option([], "kinds of reward or module:function; several are summed")
    reward_path: list[str] = option([], "where their models are, in that order", free="resume")
    reward_weights: list[float] = option([], "their weights; none = equal", minimum=0)

    def check_kinds(self, known: Collection[str]) -> None:
        """Raises UserError for a kind that is neither known nor a plug-in's name."""
        for name in self.reward:
            if name not in known and ":" not in name:
                raise UserError(
                    f"--reward {name} is unknown; choose one of {', '.join(known)}, or name a "
                    "function of yours as module:function"
                )

    def check_weights(self, count: int) -> None:
        """Raises UserError for weights of another number of rewards, or of none."""
        if self.reward_weights and len(self.reward_weights) != count:
            raise UserError(
                f"--reward_weights holds {len(self.reward_weights)} for {count} rewards"
            )
        if self.reward_weights and not sum(self.reward_weights):
            raise UserError("--reward_weights are all zero; give one reward a weight")


class WeightedReward:
    """Weighted mean of rewards in [0, 1]; the weights need not sum to 1."""

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        self.rewards = tuple(rewards)
        self.weights = tuple(weight / sum(weights) for weight in weights)

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        return self._mean([reward.score(raw, captions) for reward in self.rewards])

    def score_with_gradient(self, raw: Samples, captions: list[str]) -> Tensor:
        """Raises UserError where one of the rewards has no gradient."""
        parts = [differentiable(reward) for reward in self.rewards]
        return self._mean([part.score_with_gradient(raw, captions) for part in parts])

    def _mean(self, parts: list[Tensor]) -> Tensor:
        weighted = [w * part for w, part in zip(self.weights, parts, strict=True)]
        return torch.stack(weighted).sum(dim=0)

    def embed(self, raw: Samples) -> Tensor:
        """Embeddings ``[B, sum of d]`` whose cosine is the weighted mean of the parts' cosines."""
        parts = [F.normalize(r.embed(raw), dim=-1) for r in self.rewards]
        return torch.cat([w**0.5 * p for w, p in zip(self.weights, parts, strict=True)], dim=-1)

    def check(self, skeleton: Skeleton | None) -> None:
        for reward in self.rewards:
            reward.check(skeleton)
