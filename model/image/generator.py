"""Diffusion models of pictures behind the generator seam: a diffusers pipeline with LoRA.

Raw samples are pictures ``[B, 3, H, W]`` in [0, 1], samples are latents ``[B, C, h, w]``.
"""

import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.image.condition import ImageCondition
from model.image.latents import LatentSpace, Posteriors
from model.image.lora import FILE, Adapters, save_lora
from model.image.noising import Noising
from model.image.pipelines import Wrapper
from model.image.prompts import Prompts
from model.lora import lora_off
from model.seam import Samples
from model.text.condition import Condition
from utils.devices import autocast_to
from utils.files import atomic_write, write_json

USUAL_CANDIDATES = 4  # K; each costs two passes of the denoiser per step with guidance


@dataclass
class ImageGenerator:
    """A `model.seam.Generator`.

    steps, guidance: of sampling; where the guidance is an input of the network, training passes the
    same scale. autocast: the number type of the denoiser in sampling. adapted: False for the
    reference, which is the same network with its adapters off.
    """

    wrapper: Wrapper
    space: LatentSpace
    noising: Noising
    prompts: Prompts
    device: torch.device
    adapters: Adapters | None
    steps: int
    guidance: float
    autocast: torch.dtype | None = None
    adapted: bool = True

    @property
    def model(self) -> nn.Module:
        return self.wrapper.denoiser

    @property
    def levels(self) -> int:
        return self.noising.levels

    @property
    def skeleton(self) -> None:
        return None

    @property
    def padded_frames(self) -> None:
        return None

    @property
    def predicts(self) -> str:
        return self.noising.predicts

    @property
    def usual_candidates(self) -> int:
        return USUAL_CANDIDATES

    def encode_text(self, captions: list[str]) -> ImageCondition:
        return self.prompts.encode(captions).to(self.device)

    def encode(self, raw: Samples, rng: torch.Generator | None = None) -> Samples:
        """A draw of the VAE's posterior, of pictures or of `Posteriors` that were kept."""
        known = raw if isinstance(raw, Posteriors) else self.space.posteriors(raw.x)
        return Samples(self.space.draw(known, rng))

    def decode(self, samples: Samples) -> Samples:
        return Samples(self.space.decode(samples.x))

    def noise(self, samples: Samples, rng: torch.Generator | None) -> Tensor:
        return torch.randn(samples.x.shape, generator=rng, device=self.device)

    def error(self, samples: Samples, t: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """Mean squared error ``[B]`` of the predicted noise, v or velocity, in float32."""
        assert isinstance(condition, ImageCondition)
        x_t = self.noising.noisy(samples.x, t, noise)
        with self._weights():
            times = self.noising.times(t)
            predicted = self.wrapper.predict(x_t, times, condition, self.guidance)
        target = self.noising.target(samples.x, t, noise)
        return (predicted.float() - target).square().flatten(1).mean(dim=1)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        like: Samples,
        rng: torch.Generator | None,
        start: float = 1.0,
    ) -> Samples:
        """By the pipeline's own scheduler. Raises ValueError for `start` below 1."""
        if start < 1:
            raise ValueError("pictures are sampled from noise alone")
        return self.sample_from(self.noise(like, rng), condition, rng)

    @torch.no_grad()
    def sample_from(
        self, noise: Tensor, condition: Condition, rng: torch.Generator | None = None
    ) -> Samples:
        """From this noise ``[B, C, h, w]``; only a scheduler that adds noise draws from `rng`."""
        assert isinstance(condition, ImageCondition)
        guided = self.guidance > 1 and not self.wrapper.embedded_guidance
        empty = self.prompts.no_text(len(noise)).to(self.device) if guided else None
        with self._weights(), autocast_to(self.device, self.autocast):
            latents = self.wrapper.sample(noise, condition, empty, self.steps, self.guidance, rng)
        # The weights that were cast without gradient would serve a loss in the same autocast
        torch.clear_autocast_cache()
        return Samples(latents.float())

    def blank(self, size: int, height: int, width: int) -> Samples:
        """Latents of `size` pictures of that many pixels with nothing in them, for `sample`."""
        factor = self.wrapper.vae_scale
        channels = self.space.vae.config.latent_channels
        shape = (size, channels, height // factor, width // factor)
        return Samples(torch.zeros(shape, device=self.device))

    def signal(self, t: Tensor) -> Tensor:
        return self.noising.signal(t)

    def frozen(self) -> "ImageGenerator":
        """The same network without its adapters; bit for bit the policy while these are new.

        Raises ValueError without adapters, as the network itself would be trained.
        """
        if self.adapters is None:
            raise ValueError("only a generator with adapters has a frozen reference")
        return replace(self, adapted=False)

    def save(
        self, folder: Path, step: int, average: nn.Module | None, args: dict[str, Any]
    ) -> Path:
        """``loraNNNNNNNNN.safetensors``, the same as ``pytorch_lora_weights.safetensors``, the name
        that diffusers looks for, and ``args.json``."""
        adapters = average if isinstance(average, Adapters) else self.adapters
        assert adapters is not None
        path = folder / f"lora{step:09d}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        save_lora(path, self.wrapper, adapters)
        with atomic_write(folder / FILE) as temporary:
            shutil.copyfile(path, temporary)
        write_json(folder / "args.json", args)
        return path

    def _weights(self) -> AbstractContextManager[object]:
        return nullcontext() if self.adapted else lora_off(self.model)
