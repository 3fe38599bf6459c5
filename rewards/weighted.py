"""Several rewards as one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from data_loaders.skeleton import Skeleton
from model.seam import Samples
from rewards.seam import Reward, differentiable


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
