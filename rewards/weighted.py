"""Several rewards as one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from data_loaders.skeleton import Skeleton
from model.seam import Samples
from rewards.seam import Reward


class WeightedReward:
    """Weighted mean of rewards in [0, 1]; the weights need not sum to 1."""

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        self.rewards = tuple(rewards)
        self.weights = tuple(weight / sum(weights) for weight in weights)

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        parts = [
            w * r.score(raw, captions) for w, r in zip(self.weights, self.rewards, strict=True)
        ]
        return torch.stack(parts).sum(dim=0)

    def embed(self, raw: Samples) -> Tensor:
        """Embeddings ``[B, sum of d]`` whose cosine is the weighted mean of the parts' cosines."""
        parts = [F.normalize(r.embed(raw), dim=-1) for r in self.rewards]
        return torch.cat([w**0.5 * p for w, p in zip(self.weights, parts, strict=True)], dim=-1)

    def check(self, skeleton: Skeleton | None) -> None:
        for reward in self.rewards:
            reward.check(skeleton)
