"""Samplers: one pure function per published algorithm, with one signature.

A denoiser maps (x_t ``[B, ...]``, original step index ``[B]``) to x0; `denoiser_of_noise` makes one
of a network that predicts the noise. The noise source maps the number of the executed step (0 = the
first) to noise shaped like x; `noise_from` draws it from a generator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.gaussian import GaussianDiffusion
from diffusion.schedule import half_log_snr

Denoiser = Callable[[Tensor, Tensor], Tensor]
NoiseSource = Callable[[int], Tensor]


@dataclass(frozen=True)
class Inpainting:
    """Entries of x0 that are known: where `mask` is True, `motion` replaces the prediction."""

    mask: Tensor
    motion: Tensor


def denoiser_of_noise(predict_noise: Denoiser, diffusion: GaussianDiffusion) -> Denoiser:
    """x0 by a network that predicts the noise; `diffusion` is the whole process, not respaced."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return diffusion.predict_x0(x, t, predict_noise(x, t))

    return denoise


def noise_from(rng: torch.Generator | None, like: Tensor) -> NoiseSource:
    """Standard normal noise per step."""

    def draw(step: int) -> Tensor:
        return torch.randn(like.shape, generator=rng, device=like.device, dtype=like.dtype)

    return draw


@torch.no_grad()
def sample_ancestral(
    denoise: Denoiser,
    diffusion: GaussianDiffusion,
    x: Tensor,
    noise: NoiseSource,
    *,
    start: int | None = None,
    inpainting: Inpainting | None = None,
    clip: bool = False,
    trajectory: list[Tensor] | None = None,
) -> Tensor:
    """Ancestral sampling (DDPM, Ho et al. 2020, Algorithm 2).

    `x` is x_t at step `start` (default: the noisiest). `trajectory`, if given, collects every x.
    """
    first = diffusion.schedule.num_timesteps - 1 if start is None else start
    for executed, index in enumerate(range(first, -1, -1)):
        t = torch.full((len(x),), index, device=x.device)
        x0 = _predict_x0(denoise, diffusion, x, index, inpainting, clip)
        step = diffusion.p_mean_variance(x0, x, t)
        x = step.mean
        if index > 0:
            x = x + (0.5 * step.log_variance).exp() * noise(executed)
        if trajectory is not None:
            trajectory.append(x)
    return x


@torch.no_grad()
def sample_ddim(
    denoise: Denoiser,
    diffusion: GaussianDiffusion,
    x: Tensor,
    noise: NoiseSource,
    *,
    eta: float = 0.0,
    start: int | None = None,
    inpainting: Inpainting | None = None,
    clip: bool = False,
) -> Tensor:
    """DDIM (Song et al. 2021, Eq. 12); eta = 0 is deterministic, eta = 1 close to ancestral.

    The last step leads to the schedule's `ddim_end`.
    """
    first = diffusion.schedule.num_timesteps - 1 if start is None else start
    for executed, index in enumerate(range(first, -1, -1)):
        x0 = _predict_x0(denoise, diffusion, x, index, inpainting, clip)
        x, sigma = ddim_step(diffusion, x, x0, index, eta)
        if sigma > 0:
            x = x + sigma * noise(executed)
    return x


def ddim_step(
    diffusion: GaussianDiffusion, x: Tensor, x0: Tensor, index: int, eta: float = 0.0
) -> tuple[Tensor, float]:
    """Mean and deviation of the next x, from x at step `index` and its x0 (DDIM, Eq. 12).

    Differentiable in x and x0.
    """
    schedule = diffusion.schedule
    now = float(schedule.alphas_cumprod[index])
    before = float(schedule.alphas_cumprod_prev[index]) if index else schedule.ddim_end
    sigma = eta * math.sqrt((1 - before) / (1 - now)) * math.sqrt(max(0.0, 1 - now / before))
    direction = math.sqrt(max(0.0, 1 - before - sigma**2))
    eps = diffusion.predict_eps(x, torch.full((len(x),), index, device=x.device), x0)
    return math.sqrt(before) * x0 + direction * eps, sigma


@torch.no_grad()
def sample_dpm(
    denoise: Denoiser,
    diffusion: GaussianDiffusion,
    x: Tensor,
    noise: NoiseSource,
    *,
    eta: float = 0.0,
    start: int | None = None,
    inpainting: Inpainting | None = None,
    clip: bool = False,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2); eta = 1 is its SDE form of the same paper.

    With lambda = log(signal / sigma), h its increase over a step, and D the x0 that the last two
    predictions extrapolate to the middle of the step,

        x' = sigma' / sigma e^(-eta h) x + signal' (1 - e^(-(1 + eta) h)) D
             + sigma' sqrt(1 - e^(-2 eta h)) noise.

    The last step, to zero noise, returns x0 itself. eta = 1 with D = x0 is ancestral sampling.
    """
    signal = diffusion.tables["signal"].tolist()
    sigma = diffusion.tables["noise"].tolist()
    snr = half_log_snr(diffusion.schedule).tolist()
    first = diffusion.schedule.num_timesteps - 1 if start is None else start
    last_x0, last_h = x, math.inf  # the first step has nothing to extrapolate from
    for executed, index in enumerate(range(first, 0, -1)):
        x0 = _predict_x0(denoise, diffusion, x, index, inpainting, clip)
        h = snr[index - 1] - snr[index]
        middle = x0 + h / (2 * last_h) * (x0 - last_x0)
        decay = sigma[index - 1] / sigma[index] * math.exp(-eta * h)
        x = decay * x - signal[index - 1] * math.expm1(-(1 + eta) * h) * middle
        if eta > 0:
            x = x + sigma[index - 1] * math.sqrt(-math.expm1(-2 * eta * h)) * noise(executed)
        last_x0, last_h = x0, h
    return _predict_x0(denoise, diffusion, x, 0, inpainting, clip)


@torch.no_grad()
def sample_lcm(
    denoise: Denoiser,
    diffusion: GaussianDiffusion,
    x: Tensor,
    noise: NoiseSource,
    *,
    start: int | None = None,
    inpainting: Inpainting | None = None,
    clip: bool = False,
) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023, Algorithm 3) of a distilled network.

    The consistency function c_skip x + c_out x0 of every step t is noised to the next. With
    s = 10 t, c_skip = 0.25 / (s^2 + 0.25) and c_out = s / sqrt(s^2 + 0.25).
    """
    first = diffusion.schedule.num_timesteps - 1 if start is None else start
    for executed, index in enumerate(range(first, -1, -1)):
        x0 = _predict_x0(denoise, diffusion, x, index, inpainting, clip)
        scaled = 10.0 * int(diffusion.schedule.timestep_map[index])
        variance = scaled**2 + 0.25
        x = 0.25 / variance * x + scaled / math.sqrt(variance) * x0
        if index > 0:
            t = torch.full((len(x),), index - 1, device=x.device)
            x = diffusion.q_sample(x, t, noise(executed))
    return x


def merge_noise(diffusion: GaussianDiffusion, kept: list[int], noise: NoiseSource) -> NoiseSource:
    """Noise for a sampler of the `kept` steps (ascending) that sums up what all steps would get.

    Steps that are left out had brought x from t to t - 1 with the posterior's factor c_t of x_t and
    deviation s_t; the sum of the s_t z_t, each times the later factors, is the noise of the one
    step that replaces them. So few steps follow the random path of many, exactly where x0 is
    constant. The steps must be asked for in order, because `noise` is.
    """
    schedule = diffusion.schedule
    factors = schedule.posterior_mean_coef2.tolist()
    variances = schedule.posterior_variance.tolist()
    last = schedule.num_timesteps - 1

    def merged(executed: int) -> Tensor:
        total, variance = torch.zeros(()), 0.0
        for t in range(kept[-1 - executed], kept[-2 - executed], -1):
            total = factors[t] * total + math.sqrt(variances[t]) * noise(last - t)
            variance = factors[t] ** 2 * variance + variances[t]
        return total / math.sqrt(variance)

    return merged


def _predict_x0(
    denoise: Denoiser,
    diffusion: GaussianDiffusion,
    x: Tensor,
    index: int,
    inpainting: Inpainting | None,
    clip: bool,
) -> Tensor:
    # a filled tensor, not a copied one: a copy to the GPU would make the host wait at every step
    original = int(diffusion.schedule.timestep_map[index])
    x0 = denoise(x, torch.full((len(x),), original, device=x.device))
    if inpainting is not None:
        x0 = torch.where(inpainting.mask, inpainting.motion, x0)
    return x0.clamp(-1, 1) if clip else x0
