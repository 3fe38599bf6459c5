"""Gaussian diffusion: forward process, posterior from x0, and the masked error.

Works on any shape ``[B, ...]``; steps t ``[B]`` index the schedule. Coefficients are computed in
float64 and applied in the type of the motion.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Prediction:
    """Distribution of x_{t-1} and its x0, shaped like x_t (the variances broadcast)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x0: Tensor


class GaussianDiffusion:
    """Closed forms of one schedule. `sigma_small` = posterior variance, else beta."""

    def __init__(self, schedule: NoiseSchedule, sigma_small: bool = True) -> None:
        self.schedule = schedule
        cumulative = schedule.alphas_cumprod
        self.tables = {
            "signal": cumulative.sqrt(),
            "noise": (1 - cumulative).sqrt(),
            "inverse_signal": (1 / cumulative).sqrt(),
            "inverse_noise": (1 / cumulative - 1).sqrt(),
            "coef1": schedule.posterior_mean_coef1,
            "coef2": schedule.posterior_mean_coef2,
            "posterior_variance": schedule.posterior_variance,
            "posterior_log_variance": schedule.posterior_log_variance,
        }
        if sigma_small:
            variance = self.tables["posterior_variance"]
            log_variance = self.tables["posterior_log_variance"]
        else:
            variance = torch.cat([schedule.posterior_variance[1:2], schedule.betas[1:]])
            log_variance = variance.log()
        self.tables |= {"variance": variance, "log_variance": log_variance}
        self._placed: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def coefficient(self, name: str, t: Tensor, like: Tensor) -> Tensor:
        """Table entry at t ``[B]``, shaped to broadcast over `like`."""
        key = (like.device, like.dtype)
        if key not in self._placed:
            self._placed[key] = {
                n: v.to(device=like.device, dtype=like.dtype) for n, v in self.tables.items()
            }
        return self._placed[key][name][t].view(-1, *[1] * (like.dim() - 1))

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise."""
        signal = self.coefficient("signal", t, x0)
        return signal * x0 + self.coefficient("noise", t, x0) * noise

    def q_posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log variance of q(x_{t-1} | x_t, x0)."""
        mean = self.coefficient("coef1", t, x_t) * x0 + self.coefficient("coef2", t, x_t) * x_t
        return (
            mean,
            self.coefficient("posterior_variance", t, x_t),
            self.coefficient("posterior_log_variance", t, x_t),
        )

    def predict_eps(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """The noise that turns x0 into x_t."""
        scaled = self.coefficient("inverse_signal", t, x_t) * x_t
        return (scaled - x0) / self.coefficient("inverse_noise", t, x_t)

    def predict_x0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x0 that the noise `eps` turned into x_t."""
        scaled = self.coefficient("inverse_signal", t, x_t) * x_t
        return scaled - self.coefficient("inverse_noise", t, x_t) * eps

    def p_mean_variance(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """Distribution of x_{t-1} given the network's x0."""
        mean = self.q_posterior(x0, x_t, t)[0]
        return Prediction(
            mean,
            self.coefficient("variance", t, x_t),
            self.coefficient("log_variance", t, x_t),
            x0,
        )


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Per-sample mean squared error over valid frames and features.

    prediction, target ``[B, T, D]``; mask ``[B, T]``, True = valid. Returns ``[B]``; a sample
    without a valid frame gives 0.
    """
    squared = (prediction - target).square() * mask.unsqueeze(-1)
    entries = prediction.shape[-1] * mask.sum(dim=1)
    return squared.sum(dim=(1, 2)) / (entries + 1e-8)
