"""Noise levels of pictures and what a network predicts there: noise, v, or the flow's velocity.

Level 0 has the least noise; every level is equally likely in training. x is the clean latent, n the
noise, and errors are means over channels and positions.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from utils.errors import UserError
from utils.extras import extra

DENSITIES = ("uniform", "logit_normal")


def column(values: Tensor) -> Tensor:
    """``[B]`` -> ``[B, 1, 1, 1]``."""
    return values.view(-1, 1, 1, 1)


class Noising(Protocol):
    @property
    def levels(self) -> int: ...

    @property
    def predicts(self) -> str:
        """``noise``, ``v`` or ``velocity``."""

    def times(self, t: Tensor) -> Tensor:
        """What the network reads ``[B]`` at levels t ``[B]``."""

    def noisy(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The latents at levels t."""

    def target(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the network should predict there."""

    def clean(self, noisy: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """x that a prediction amounts to."""

    def signal(self, t: Tensor) -> Tensor:
        """Share of the variance that is signal ``[B]``."""

    def level_share(self, noise: float) -> float:
        """The share of the levels that have less noise than `noise` in [0, 1] (t / T, or sigma)."""

    def to(self, device: torch.device | str) -> "Noising": ...


@dataclass(frozen=True)
class VarianceNoising:
    """x_t = sqrt(abar) x + sqrt(1 - abar) n; targets n, or v = sqrt(abar) n - sqrt(1 - abar) x
    (Salimans and Ho 2022)."""

    alphas_cumprod: Tensor
    predicts_v: bool

    @property
    def levels(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def predicts(self) -> str:
        return "v" if self.predicts_v else "noise"

    def times(self, t: Tensor) -> Tensor:
        return t

    def noisy(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        signal, spread = self._roots(t)
        return signal * x + spread * noise

    def target(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        if not self.predicts_v:
            return noise
        signal, spread = self._roots(t)
        return signal * noise - spread * x

    def clean(self, noisy: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        signal, spread = self._roots(t)
        if self.predicts_v:
            return signal * noisy - spread * prediction
        return (noisy - spread * prediction) / signal

    def signal(self, t: Tensor) -> Tensor:
        return self.alphas_cumprod[t]

    def level_share(self, noise: float) -> float:
        return noise

    def to(self, device: torch.device | str) -> "VarianceNoising":
        return VarianceNoising(self.alphas_cumprod.to(device), self.predicts_v)

    def _roots(self, t: Tensor) -> tuple[Tensor, Tensor]:
        signal = column(self.alphas_cumprod[t])
        return signal.sqrt(), (1 - signal).sqrt()


@dataclass(frozen=True)
class FlowNoising:
    """x_t = (1 - sigma) x + sigma n; target n - x (Lipman et al. 2023; Esser et al. 2024).

    `sigmas` and `timesteps` ``[levels]`` ascend.
    """

    sigmas: Tensor
    timesteps: Tensor

    @property
    def levels(self) -> int:
        return len(self.sigmas)

    @property
    def predicts(self) -> str:
        return "velocity"

    def times(self, t: Tensor) -> Tensor:
        return self.timesteps[t]

    def noisy(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        sigma = column(self.sigmas[t])
        return (1 - sigma) * x + sigma * noise

    def target(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return noise - x

    def clean(self, noisy: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        return noisy - column(self.sigmas[t]) * prediction

    def signal(self, t: Tensor) -> Tensor:
        sigma = self.sigmas[t]
        return (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)

    def level_share(self, noise: float) -> float:
        return float((self.sigmas < noise).double().mean())

    def to(self, device: torch.device | str) -> "FlowNoising":
        return FlowNoising(self.sigmas.to(device), self.timesteps.to(device))


def diffusion_noising(scheduler: Any) -> VarianceNoising:
    """The training levels of a pipeline's scheduler, whichever sampler that is.

    Raises UserError for a model that predicts something else.
    """
    config = scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise UserError(
            f"this model predicts {prediction}; its scheduler must say epsilon or v_prediction"
        )
    table = extra("diffusers").DDPMScheduler.from_config(config).alphas_cumprod
    return VarianceNoising(table, prediction == "v_prediction")


def flow_noising(scheduler: Any, density: str) -> FlowNoising:
    """The training levels of a flow's scheduler, with its shift unless that depends on the picture.

    The density of training is in the levels: level t is the (t + 1/2) / T quantile of u, from which
    diffusers' trainers look the noise up in the scheduler's tables.
    """
    fresh = type(scheduler).from_config(scheduler.config)  # a sampler writes over its own tables
    count = len(fresh.timesteps)
    u = 1 - (torch.arange(count, dtype=torch.float64) + 0.5) / count  # the tables descend
    if density == "logit_normal":
        u = torch.special.ndtri(u).sigmoid()
    index = (u * count).floor().long().clamp(0, count - 1)
    return FlowNoising(fresh.sigmas[index], fresh.timesteps[index])
