"""MLD, MLD* and MotionLCM behind the generator seam: noise prediction in the latents of a VAE."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from diffusion.gaussian import GaussianDiffusion
from diffusion.samplers import Denoiser, denoiser_of_noise, noise_from
from diffusion.sampling import SamplerOptions, StartPoint
from diffusion.schedule import (
    make_schedule,
    respace,
    select_consistency_steps,
    select_offset_stride,
)
from model.compiled import CompiledNetwork
from model.latent import by_length
from model.latent.checkpoints import LatentSettings, save_checkpoint
from model.latent.denoiser import LatentDenoiser
from model.latent.vae import MotionVAE
from model.lora import LORA_FILE, frozen_copy, merged, save_lora
from model.memory import within_memory
from model.seam import Samples
from model.text.condition import Condition, TextEncoder
from utils.devices import sampling
from utils.errors import UserError
from utils.masks import zero_padding

DIFFUSION_SAMPLER, STUDENT_SAMPLER = SamplerOptions("ddim", 50), SamplerOptions("lcm", 1)
GUIDANCE = 7.5
TAUGHT_STEPS = 50  # that MotionLCM v1's student was distilled on
# The steps and guidance scales of MotionLCM v2's student, by the number of steps.
V2_STEPS = {1: [799], 2: [299, 699], 4: [299, 299, 399, 699]}
V2_GUIDANCE = {1: 8.0, 2: 12.5, 4: 13.5}


@dataclass
class MLDGenerator:
    """A `model.seam.Generator`; its samples are latents ``[B, n, d]``, with lengths in frames.

    The VAE is frozen. `guidance` is the scale of classifier-free guidance, in a consistency student
    an input of the network; None = as published. `autocast` is the number type of the denoiser in
    sampling (None = float32), `compiled` samples through `torch.compile`. `spill`: frames after a
    motion's length that hold the mean pose, as upstream's evaluation has it, not zeros.
    """

    model: LatentDenoiser
    vae: MotionVAE
    settings: LatentSettings
    stats: Statistics
    text_encoder: TextEncoder
    skeleton: Skeleton
    device: torch.device
    sampler: SamplerOptions = DIFFUSION_SAMPLER
    guidance: float | None = None
    autocast: torch.dtype | None = None
    compiled: bool = False
    spill: int = 0
    predicts: ClassVar[str] = "noise"
    usual_candidates: ClassVar[int] = 2  # K of the paper's MLD*

    @cached_property
    def diffusion(self) -> GaussianDiffusion:
        settings = self.settings
        return GaussianDiffusion(make_schedule(settings.noise_schedule, settings.diffusion_steps))

    @property
    def levels(self) -> int:
        return self.settings.diffusion_steps

    @property
    def padded_frames(self) -> None:
        """Any: the VAE masks padding."""
        return None

    @property
    def is_student(self) -> bool:
        """A consistency student: distilled to few steps, with the guidance scale as an input."""
        return self.model.config.guidance_dim > 0

    def encode_text(self, captions: list[str]) -> Condition:
        return self.text_encoder.encode(captions).to(self.device)

    def encode(self, raw: Samples, rng: torch.Generator | None = None) -> Samples:
        """A draw of the VAE. Raises UserError for motions longer than its positions."""
        x = zero_padding(self.stats.normalize(raw.x), raw.frames)
        latents = by_length.distribution(self.vae, x, raw.frames)
        noise = torch.randn(latents.mean.shape, generator=rng, device=self.device)
        return Samples(latents.sample(noise), raw.lengths)

    def decode(self, samples: Samples) -> Samples:
        raw = self.stats.denormalize(by_length.decode(self.vae, samples.x, samples.frames))
        return Samples(zero_padding(raw, samples.frames + self.spill), samples.lengths)

    def blank(self, lengths: Tensor) -> Samples:
        """Samples of these lengths ``[B]`` with nothing in them, for `sample` to be like."""
        config = self.vae.config
        shape = (len(lengths), config.latent_tokens, config.latent_dim)
        return Samples(torch.zeros(shape, device=self.device), lengths)

    def noise(self, samples: Samples, rng: torch.Generator | None) -> Tensor:
        return torch.randn(samples.x.shape, generator=rng, device=self.device)

    def error(
        self,
        samples: Samples,
        t: Tensor,
        noise: Tensor,
        condition: Condition,
        drop_text: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error ``[B]`` of the predicted noise.

        drop_text ``[B]``: samples whose caption is replaced by the empty one (base training only).
        """
        if drop_text is not None:
            rows = torch.arange(len(condition), device=self.device)
            rows = rows.masked_fill(drop_text, len(condition))  # the row of the empty caption
            condition = Condition.cat([condition, self.no_text])[rows]
        x_t = self.diffusion.q_sample(samples.x, t, noise)
        return (self.model(x_t, t, condition).float() - noise).square().flatten(1).mean(dim=1)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        like: Samples,
        rng: torch.Generator | None = None,
        start: float = 1.0,
    ) -> Samples:
        """Raises UserError for lengths beyond the VAE's positions."""
        self.vae.check_length(int(like.frames.max()))
        x, first = self.noise(like, rng), None
        denoise, diffusion = self.denoising(condition, like)
        if start < 1:
            first, x = StartPoint(like.x, start).noised(diffusion, x)
        with sampling(self.model, self.device, self.autocast):
            x = self.sampler.run(denoise, diffusion, x, noise_from(rng, x), first)
        return Samples(x, like.lengths)

    def denoising(self, condition: Condition, like: Samples) -> tuple[Denoiser, GaussianDiffusion]:
        """What a sampler runs on: x0 of latents ``[B, n, d]``, and the executed steps."""
        denoise = denoiser_of_noise(self.predicted_noise(condition), self.diffusion)
        return denoise, GaussianDiffusion(respace(self.diffusion.schedule, self.kept_steps()))

    def predicted_noise(self, condition: Condition) -> Denoiser:
        """The noise as sampling asks the network for it, in halves where memory does not suffice
        for all rows."""
        rows = torch.arange(len(condition), device=self.device)
        return within_memory(lambda few: self._guided_noise(condition[few]), rows)

    def _guided_noise(self, condition: Condition) -> Denoiser:
        """With guidance u + s (c - u), both passes in one doubled batch; a consistency student
        reads s instead."""
        network, scale = self._network, self.scale
        if self.is_student:
            scales = torch.full((len(condition),), scale, device=self.device)
            return lambda x, t: network(x, t, condition, scales).to(x.dtype)
        if scale == 1 or self.settings.cond_mask_prob == 0:  # it never saw the empty caption
            return lambda x, t: network(x, t, condition).to(x.dtype)
        both = Condition.cat([condition, self.no_text.repeat(len(condition))])

        def predict(x: Tensor, t: Tensor) -> Tensor:
            doubled = network(x.repeat(2, 1, 1), t.repeat(2), both).to(x.dtype)
            conditional, unconditional = doubled.chunk(2)
            return unconditional + scale * (conditional - unconditional)

        return predict

    @property
    def scale(self) -> float:
        """The guidance scale that is used."""
        if self.guidance is not None:
            return self.guidance
        by_steps = V2_GUIDANCE if self.is_student and self.model.config.projected else {}
        return by_steps.get(self.sampler.steps or 0, GUIDANCE)

    @cached_property
    def no_text(self) -> Condition:
        """The empty caption, which stands for no condition."""
        return self.encode_text([""])

    def kept_steps(self) -> list[int]:
        """The executed steps, ascending, as upstream places them. Raises UserError where the
        sampler does not suit the model."""
        count = self.sampler.steps or self.levels
        if self.is_student != (self.sampler.name == "lcm"):
            kind = "a consistency student" if self.is_student else "no consistency student"
            raise UserError(f"this model is {kind}: the sampler lcm is for those, and they for it")
        if self.is_student:
            return self._taught_steps(count)
        if self.sampler.name == "ddim" and 1 < count <= self.levels:
            return select_offset_stride(self.levels, count)
        return self.sampler.kept_steps(self.diffusion.schedule)

    def _taught_steps(self, count: int) -> list[int]:
        if not self.model.config.projected:
            return select_consistency_steps(self.levels, count, TAUGHT_STEPS)
        if count not in V2_STEPS:
            raise UserError(f"this consistency student takes 1, 2 or 4 steps, not {count}")
        return V2_STEPS[count]

    def signal(self, t: Tensor) -> Tensor:
        return self.diffusion.schedule.alphas_cumprod.to(t.device, torch.float32)[t]

    def frozen(self) -> "MLDGenerator":
        """Raises UserError for a consistency student."""
        if self.is_student:
            raise UserError(
                "this is a consistency student, which was distilled to jump from noise to motion "
                "and has no error at a noise level; tune the model that it was distilled from"
            )
        return self.with_model(frozen_copy(self.model))

    def with_model(self, model: LatentDenoiser) -> "MLDGenerator":
        """The same generator around other weights."""
        return replace(self, model=model)

    def save(
        self, folder: Path, step: int, average: nn.Module | None, args: dict[str, Any]
    ) -> Path:
        """With adapters, the merged network, and beside it the newest adapters alone."""
        networks = {"vae": self.vae, "denoiser": merged(self.model)}
        mean = None if average is None else merged(average)
        path = save_checkpoint(folder, step, networks, self.stats, self.settings, mean, args)
        save_lora(folder / LORA_FILE, average or self.model)
        return path

    @cached_property
    def _network(self) -> nn.Module:
        """What samples: the model, or its compiled form."""
        return CompiledNetwork(self.model) if self.compiled else self.model
