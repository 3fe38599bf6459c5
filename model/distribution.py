"""Diagonal Gaussians, the latent distributions of variational encoders."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Distribution:
    """A diagonal Gaussian per sample: mean and log variance ``[B, ...]``."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor, fact: float = 1.0) -> Tensor:
        """mean + fact * noise * std, with standard normal `noise` of the mean's shape."""
        return self.mean + fact * noise * (self.logvar / 2).exp()

    def standard(self) -> "Distribution":
        """N(0, 1) of the same shape."""
        return Distribution(torch.zeros_like(self.mean), torch.zeros_like(self.mean))


def kl_divergence(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p), averaged over samples and dimensions."""
    ratio = (q.logvar - p.logvar).exp()
    distance = (p.mean - q.mean).square() / p.logvar.exp()
    return 0.5 * (ratio + distance - 1 - (q.logvar - p.logvar)).mean()
