"""Pictures in [0, 1] and the latents of a diffusers VAE."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.seam import Samples


@dataclass(frozen=True)
class Posteriors(Samples):
    """The VAE's means and standard deviations ``[B, 2C, h, w]`` of pictures, which may be kept:
    what `encode` draws from without a second pass."""


@dataclass(frozen=True)
class LatentSpace:
    """An `AutoencoderKL`, whose latents z become x = (z - shift) scale for the denoiser.

    It computes in float32, whatever the denoiser does: that of SDXL overflows in half precision.
    """

    vae: Any

    @property
    def scale(self) -> float:
        return float(self.vae.config.scaling_factor)

    @property
    def shift(self) -> float:
        return float(self.vae.config.shift_factor or 0)

    @torch.no_grad()
    def posteriors(self, images: Tensor) -> Posteriors:
        """Of pictures ``[B, 3, H, W]`` in [0, 1]."""
        with torch.autocast(images.device.type, enabled=False):
            distribution = self.vae.encode(images.float() * 2 - 1).latent_dist
        return Posteriors(torch.cat([distribution.mean, distribution.std], dim=1))

    def draw(self, posteriors: Posteriors, rng: torch.Generator | None) -> Tensor:
        """One draw ``[B, C, h, w]`` of each posterior, as the denoiser reads it."""
        mean, std = posteriors.x.chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=rng, device=mean.device)
        return self.normalise(mean + std * noise)

    def normalise(self, z: Tensor) -> Tensor:
        return (z - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]``, clamped to [0, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            images = self.vae.decode(x.float() / self.scale + self.shift, return_dict=False)[0]
        return (images / 2 + 0.5).clamp(0, 1)
