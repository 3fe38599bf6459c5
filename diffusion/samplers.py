"""Samplers: one pure function per published algorithm, with one signature.

A denoiser maps (x_t ``[B, ...]``, original step index ``[B]``) to x0. The noise source maps the
number of the executed step (0 = the first) to noise shaped like x; `noise_from` draws it from a
generator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.gaussian import GaussianDiffusion

Denoiser = Callable[[Tensor, Tensor], Tensor]
NoiseSource = Callable[[int], Tensor]


@dataclass(frozen=True)
class Inpainting:
    """Entries of x0 that are known: where `mask` is True, `motion` replaces the prediction."""

    mask: Tensor
    motion: Tensor


def noise_from(
    rng: torch.Generator | None, like: Tensor, same_for_batch: bool = False
) -> NoiseSource:
    """Standard normal noise per step; `same_for_batch` repeats the first sample's."""

    def draw(step: int) -> Tensor:
        noise = torch.randn(like.shape, generator=rng, device=like.device, dtype=like.dtype)
        return noise[:1].expand_as(noise) if same_for_batch else noise

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
        x0 = _predict_x0(denoise, diffusion, x, t, inpainting, clip)
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
    """DDIM (Song et al. 2021, Eq. 12); eta = 0 is deterministic, eta = 1 close to ancestral."""
    schedule = diffusion.schedule
    first = schedule.num_timesteps - 1 if start is None else start
    now, before = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    sigma = eta * ((1 - before) / (1 - now)).sqrt() * (1 - now / before).sqrt()
    direction = (1 - before - sigma**2).clamp(min=0).sqrt()
    signal = before.sqrt()
    for executed, index in enumerate(range(first, -1, -1)):
        t = torch.full((len(x),), index, device=x.device)
        x0 = _predict_x0(denoise, diffusion, x, t, inpainting, clip)
        eps = diffusion.predict_eps(x, t, x0)
        x = float(signal[index]) * x0 + float(direction[index]) * eps
        if index > 0 and eta > 0:
            x = x + float(sigma[index]) * noise(executed)
    return x


def _predict_x0(
    denoise: Denoiser,
    diffusion: GaussianDiffusion,
    x: Tensor,
    t: Tensor,
    inpainting: Inpainting | None,
    clip: bool,
) -> Tensor:
    original = diffusion.schedule.timestep_map.to(x.device)[t]
    x0 = denoise(x, original)
    if inpainting is not None:
        x0 = torch.where(inpainting.mask, inpainting.motion, x0)
    return x0.clamp(-1, 1) if clip else x0
