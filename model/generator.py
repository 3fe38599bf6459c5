"""Generators: network, diffusion, normaliser and text encoder behind three verbs.

Preference code sees only `MotionGenerator`: `encode_text`, `denoising_error`, `sample`.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from diffusion.gaussian import GaussianDiffusion, masked_mse
from diffusion.samplers import Denoiser, noise_from, sample_ancestral, sample_ddim
from diffusion.schedule import respace, select_timesteps
from model.mdm import MDM
from model.text_encoders import Condition, TextEncoder
from utils.errors import UserError


@dataclass(frozen=True)
class SamplerOptions:
    """Which sampler, with how many steps (None = all of the model's), and DDIM's eta."""

    name: str = "ancestral"
    steps: int | None = None
    eta: float = 0.0


class MotionGenerator(Protocol):
    """What preference optimisation needs of a generator. Motions are normalised by `stats`."""

    model: nn.Module
    diffusion: GaussianDiffusion
    stats: Statistics
    device: torch.device

    @property
    def padded_frames(self) -> int | None:
        """Frames that training batches must have; None: any, padding is masked."""

    def encode_text(self, captions: list[str]) -> Condition: ...

    def denoising_error(
        self, motion: Tensor, lengths: Tensor, t: Tensor, noise: Tensor, condition: Condition
    ) -> Tensor:
        """Per-sample error ``[B]`` of motions ``[B, T, D]`` noised to steps t ``[B]``."""

    def sample(
        self,
        condition: Condition,
        lengths: Tensor,
        sampler: SamplerOptions,
        guidance: float,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Motions ``[B, T, D]``, T = the longest length."""

    def with_model(self, model: nn.Module) -> "MotionGenerator":
        """The same generator around other weights."""


@dataclass
class MDMGenerator:
    """MDM in motion space. `autocast` is the number type of sampling (None = float32)."""

    model: MDM
    diffusion: GaussianDiffusion
    stats: Statistics
    text_encoder: TextEncoder
    skeleton: Skeleton
    device: torch.device
    autocast: torch.dtype | None = None

    def with_model(self, model: nn.Module) -> "MDMGenerator":
        return replace(self, model=model)

    @property
    def padded_frames(self) -> int | None:
        """A model that masks frames never sees padding; another one was trained at full length."""
        return None if self.model.config.mask_frames else self.skeleton.max_length

    def encode_text(self, captions: list[str]) -> Condition:
        return self.text_encoder.encode(captions).to(self.device)

    def denoising_error(
        self,
        motion: Tensor,
        lengths: Tensor,
        t: Tensor,
        noise: Tensor,
        condition: Condition,
        drop_text: Tensor | None = None,
    ) -> Tensor:
        """Masked mean squared error ``[B]`` of the predicted x0 (MDM, Eq. 2).

        motion ``[B, T, D]`` normalised, zero beyond the lengths ``[B]``; t ``[B]``; noise like
        motion; drop_text ``[B]``: samples whose caption is hidden (base training only).
        """
        mask = length_mask(lengths, motion.shape[1])
        x_t = self.diffusion.q_sample(motion, t, noise)
        original = self.diffusion.schedule.timestep_map.to(t.device)[t]
        x0 = self.model(x_t, original, condition, mask, drop_text)
        return masked_mse(x0.float(), motion, mask)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        lengths: Tensor,
        sampler: SamplerOptions = SamplerOptions(),
        guidance: float = 2.5,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Motions ``[B, T, D]`` with T = the longest length; frames beyond a length are as sampled.

        A model without frame masking has only ever seen sequences of the full training length, so
        it samples that many frames, which are then cut. `noise` fixes x_T ``[B, T', D]``.
        """
        frames = int(lengths.max())
        size = max(frames, self.padded_frames or 0)
        shape = (len(condition), size, self.stats.feature_dim)
        x = noise
        if x is None:
            x = torch.randn(shape, generator=generator, device=self.device)
        if x.shape != shape:
            raise ValueError(f"noise has shape {tuple(x.shape)}, this call samples {shape}")
        was_training = self.model.training
        self.model.eval()
        denoise = guided_denoiser(
            self.model, condition, length_mask(lengths, size), self._guidance(guidance)
        )
        diffusion = self._respaced(sampler.steps, sampler.name)
        draw = noise_from(generator, x)
        with self._autocast():
            if sampler.name == "ddim":
                x = sample_ddim(denoise, diffusion, x, draw, eta=sampler.eta)
            elif sampler.name == "ancestral":
                x = sample_ancestral(denoise, diffusion, x, draw)
            else:
                raise UserError(f"sampler {sampler.name} is unknown; use ancestral or ddim")
        self.model.train(was_training)
        return x[:, :frames]

    def _guidance(self, guidance: float) -> float:
        """Guidance needs a model that was trained with dropped captions."""
        config = self.model.config
        return 1.0 if config.unconstrained or config.cond_mask_prob == 0 else guidance

    def _respaced(self, steps: int | None, sampler: str) -> GaussianDiffusion:
        """The diffusion with `steps` of its steps, evenly spaced and ending at the noisiest."""
        schedule = self.diffusion.schedule
        if not steps or steps == schedule.num_timesteps:
            return self.diffusion
        if steps > schedule.num_timesteps:
            raise UserError(
                f"{steps} sampling steps exceed the model's {schedule.num_timesteps}; lower them"
            )
        kept = select_timesteps(schedule.num_timesteps, str(steps))
        if steps == 1:
            kept = [schedule.num_timesteps - 1]
        return GaussianDiffusion(respace(schedule, kept))

    def _autocast(self) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


def length_mask(lengths: Tensor, frames: int) -> Tensor:
    """``[B]`` -> ``[B, frames]``, True = valid."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def guided_denoiser(
    model: MDM, condition: Condition | None, mask: Tensor, guidance: float | Tensor
) -> Denoiser:
    """x0 with classifier-free guidance u + s (c - u), both passes in one doubled batch.

    `guidance` is a number or ``[B]``. 1 needs no unconditional pass, 0 no conditional one.
    """
    if condition is None or (not isinstance(guidance, Tensor) and guidance == 1):
        return lambda x, t: model(x, t, condition, mask).to(x.dtype)
    dropped = torch.ones(len(mask), dtype=torch.bool, device=mask.device)
    if not isinstance(guidance, Tensor) and guidance == 0:
        return lambda x, t: model(x, t, condition, mask, dropped).to(x.dtype)
    scale = guidance.view(-1, 1, 1) if isinstance(guidance, Tensor) else guidance
    if model.config.arch == "gru":  # its recurrence runs over the batch: doubling would mix passes
        return lambda x, t: torch.lerp(
            model(x, t, condition, mask, dropped), model(x, t, condition, mask), scale
        )
    both, masks = condition.repeat(2), mask.repeat(2, 1)
    drop = torch.cat([~dropped, dropped])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        doubled = model(x.repeat(2, 1, 1), t.repeat(2), both, masks, drop).to(x.dtype)
        conditional, unconditional = doubled.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return denoise
