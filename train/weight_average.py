"""A slow copy of a network's weights, which often samples better than the last ones."""

import copy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of a module's parameters, with a warm-up of the decay.

    The decay is min(beta, (1 + n) / (10 + n)) at update n, so that short runs are not dominated
    by the initial weights; for long runs it is beta.
    """

    def __init__(self, module: nn.Module, beta: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.beta, self.updates = beta, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.beta, (1 + self.updates) / (10 + self.updates))
        for mean, value in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
