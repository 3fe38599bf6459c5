"""Random numbers of token models, and what turns logits into token ids with them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-20  # upstream's floor of both logarithms of Gumbel noise


@dataclass
class Draws:
    """Numbers from one generator (None = PyTorch's own) on one device."""

    rng: torch.Generator | None = None
    device: torch.device | str = "cpu"

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1)."""
        return torch.rand(shape, generator=self.rng, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.rng, device=self.device)

    def exponential(self, *shape: int) -> Tensor:
        """With mean 1."""
        return torch.empty(shape, device=self.device).exponential_(generator=self.rng)


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise of uniform numbers: -log(-log u)."""
    return -torch.log((-torch.log(uniform.clamp_min(TINY))).clamp_min(TINY))


def draw_gumbel(logits: Tensor, temperature: float, draws: Draws) -> Tensor:
    """Ids ``[...]`` of logits ``[..., V]``: the largest of logits / temperature + Gumbel noise."""
    return (logits / temperature + gumbel(draws.uniform(*logits.shape))).argmax(dim=-1)


def draw_categorical(logits: Tensor, temperature: float, draws: Draws) -> Tensor:
    """Ids ``[...]`` from softmax(logits / temperature), as PyTorch draws them on a CPU."""
    shares = (logits / temperature).softmax(dim=-1)
    return (shares / draws.exponential(*logits.shape).clamp_min(TINY)).argmax(dim=-1)


def keep_top(logits: Tensor, threshold: float) -> Tensor:
    """Logits ``[..., V]`` of which the ceil((1 - threshold) V) largest stay; -inf elsewhere."""
    count = math.ceil((1 - threshold) * logits.shape[-1])
    values, places = logits.topk(count, dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, places, values)
