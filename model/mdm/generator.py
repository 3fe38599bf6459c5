"""Generators: network, diffusion, normaliser and text encoder behind three verbs.

Preference code sees only `MotionGenerator`: `encode_text`, `denoising_error`, `sample`.
"""

import math
from bisect import bisect_left
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from diffusion.gaussian import GaussianDiffusion, masked_mse
from diffusion.samplers import (
    Denoiser,
    NoiseSource,
    noise_from,
    sample_ancestral,
    sample_ddim,
    sample_dpm,
)
from diffusion.schedule import NoiseSchedule, respace, select_by_snr, select_timesteps
from model.compiled import CompiledNetwork
from model.layers import length_mask
from model.mdm.network import MDM
from model.mdm.worker_threads import run_side_by_side
from model.text.encoders import Condition, TextEncoder
from utils.errors import UserError

SAMPLERS = ("ancestral", "ddim", "dpm", "dpm_sde")
# The most frames of one network call, both passes counted: on a CPU, where caches are small and a
# core may make a call of its own; 330 full-length motions on a GPU, or fewer by its memory.
FRAMES_PER_CALL = {"cpu": 4096, "cuda": 65_536}
READ_BEYOND = 4  # frames after a motion's length that the evaluators' convolutions may read


@dataclass(frozen=True)
class SamplerOptions:
    """Which of `SAMPLERS`, with how many steps (None = all of the model's), and DDIM's eta."""

    name: str = "ancestral"
    steps: int | None = None
    eta: float = 0.0

    def run(
        self,
        denoise: Denoiser,
        diffusion: GaussianDiffusion,
        x: Tensor,
        noise: NoiseSource,
        start: int | None = None,
    ) -> Tensor:
        """x0 from x_T, or from x at step `start`; ``dpm`` is the deterministic form of the solver,
        ``dpm_sde`` the other."""
        if self.name == "ancestral":
            return sample_ancestral(denoise, diffusion, x, noise, start=start)
        if self.name == "ddim":
            return sample_ddim(denoise, diffusion, x, noise, start=start, eta=self.eta)
        if self.name in ("dpm", "dpm_sde"):
            return sample_dpm(
                denoise, diffusion, x, noise, start=start, eta=float(self.name == "dpm_sde")
            )
        raise UserError(f"sampler {self.name} is unknown; use one of {', '.join(SAMPLERS)}")

    def kept_steps(self, schedule: NoiseSchedule) -> list[int]:
        """The executed steps of `schedule`, ascending, the noisiest among them.

        They are evenly spaced in the index or, for the solvers that work in it, in the log-SNR.
        Raises UserError when the schedule has fewer.
        """
        total, steps = schedule.num_timesteps, self.steps or schedule.num_timesteps
        if steps > total:
            raise UserError(f"{steps} sampling steps exceed the model's {total}; lower them")
        if steps == 1:
            return [total - 1]
        if self.name.startswith("dpm"):
            return select_by_snr(schedule, steps)
        return select_timesteps(total, str(steps))


@dataclass(frozen=True)
class StartPoint:
    """Sampling that starts from motions ``[B, T, D]`` noised to a share of the steps in (0, 1)."""

    motion: Tensor
    share: float

    def noised(self, diffusion: GaussianDiffusion, noise: Tensor) -> tuple[int, Tensor]:
        """The first step that is executed and x there; `noise` ``[B, T', D]`` like x_T."""
        first = max(0, round(self.share * diffusion.schedule.num_timesteps) - 1)
        frames = min(self.motion.shape[1], noise.shape[1])
        motion = torch.zeros_like(noise)
        motion[:, :frames] = self.motion[:, :frames]
        t = torch.full((len(noise),), first, device=noise.device)
        return first, diffusion.q_sample(motion, t, noise)


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
        start: StartPoint | None = None,
    ) -> Tensor:
        """Motions ``[B, T, D]``, T = the longest length; `start` None: from noise alone."""

    def with_model(self, model: nn.Module) -> "MotionGenerator":
        """The same generator around other weights."""


@dataclass
class MDMGenerator:
    """MDM in motion space.

    `autocast` is the number type of sampling (None = float32), `compiled` samples through
    `torch.compile`.
    """

    model: MDM
    diffusion: GaussianDiffusion
    stats: Statistics
    text_encoder: TextEncoder
    skeleton: Skeleton
    device: torch.device
    autocast: torch.dtype | None = None
    compiled: bool = False

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
        step_noise: NoiseSource | None = None,
        start: StartPoint | None = None,
    ) -> Tensor:
        """Motions ``[B, T, D]`` with T = the longest length; READ_BEYOND frames beyond a length
        are as sampled, later ones may be zero.

        A model without frame masking has only ever seen sequences of the full training length, so
        it samples that many frames, which are then cut. `noise` fixes x_T ``[B, T', D]`` and
        `step_noise` what the sampler adds.
        """
        frames = int(lengths.max())
        size = max(frames, self.padded_frames or 0)
        shape = (len(condition), size, self.stats.feature_dim)
        x = noise
        if x is None:
            x = torch.randn(shape, generator=generator, device=self.device)
        if x.shape != shape:
            raise ValueError(f"noise has shape {tuple(x.shape)}, this call samples {shape}")
        diffusion = self._respaced(sampler)
        first = None
        if start is not None:
            first, x = start.noised(diffusion, x)
        was_training = self.model.training
        self.model.eval()
        denoise = self.denoiser(condition, lengths, size, guidance)
        with self._autocast():
            x = sampler.run(denoise, diffusion, x, step_noise or noise_from(generator, x), first)
        # The weights that were cast without gradient would serve a loss in the same autocast
        torch.clear_autocast_cache()
        self.model.train(was_training)
        return x[:, :frames]

    @cached_property
    def _network(self) -> nn.Module:
        """What samples: the model, or its compiled form."""
        return CompiledNetwork(self.model) if self.compiled else self.model

    def _budget(self) -> int:
        """How many frames the network computes at once, within the memory that is free now."""
        if self.device.type != "cuda":
            return FRAMES_PER_CALL["cpu"]
        config = self.model.config
        per_frame = 4 * (12 * config.latent_dim + 2 * config.ff_size)  # bytes, of one layer
        free, _ = torch.cuda.mem_get_info(self.device)
        return min(FRAMES_PER_CALL["cuda"], free // 2 // per_frame)

    def _threads(self) -> int:
        """How many calls run at once: as many as a CPU has threads, but one of compiled code."""
        return 1 if self.device.type != "cpu" or self.compiled else torch.get_num_threads()

    def denoiser(
        self, condition: Condition, lengths: Tensor, frames: int, guidance: float
    ) -> Denoiser:
        """x0 ``[B, frames, D]`` as sampling asks the network for it."""
        scale, limits = self._guidance(guidance), (self._budget(), self._threads())
        return grouped_denoiser(self._network, condition, lengths, frames, scale, *limits)

    def _guidance(self, guidance: float) -> float:
        """Guidance needs a model that was trained with dropped captions."""
        config = self.model.config
        return 1.0 if config.unconstrained or config.cond_mask_prob == 0 else guidance

    def _respaced(self, sampler: SamplerOptions) -> GaussianDiffusion:
        """The diffusion with the steps that are executed."""
        schedule = self.diffusion.schedule
        kept = sampler.kept_steps(schedule)
        if len(kept) == schedule.num_timesteps:
            return self.diffusion
        return GaussianDiffusion(respace(schedule, kept), self.model.config.sigma_small)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


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


def split_by_length(
    lengths: list[int], frames: int, trim: bool, budget: int
) -> list[tuple[list[int], int]]:
    """Rows of one network call each, and the frames ``<= frames`` that it computes.

    A call has at most `budget` frames in all (or one row). With `trim`, rows of similar length go
    together and no frames are computed beyond their longest, except `READ_BEYOND`.
    """
    if not trim:
        count = max(1, budget // frames)
        rows = list(range(len(lengths)))
        return [(rows[i : i + count], frames) for i in range(0, len(rows), count)]
    groups: list[tuple[list[int], int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if groups and (len(groups[-1][0]) + 1) * groups[-1][1] <= budget:
            groups[-1][0].append(row)
        else:
            groups.append(([row], min(frames, lengths[row] + READ_BEYOND)))
    return groups


def balanced_groups(
    lengths: list[int], frames: int, trim: bool, budget: int, threads: int
) -> list[tuple[list[int], int]]:
    """`split_by_length` for calls that run `threads` at once, in rounds.

    As many rounds as `budget` demands, and then the smallest budget that needs no more of them, so
    that no thread waits long for another. What fits in one call stays one.
    """
    split = partial(split_by_length, lengths, frames, trim)
    groups = split(budget)
    if threads == 1 or len(groups) == 1:
        return groups
    most = threads * math.ceil(len(groups) / threads)
    return split(bisect_left(range(budget), True, key=lambda size: len(split(size)) <= most))


def grouped_denoiser(
    model: MDM,
    condition: Condition,
    lengths: Tensor,
    frames: int,
    guidance: float,
    budget: int,
    threads: int = 1,
) -> Denoiser:
    """`guided_denoiser` in calls of at most `budget` frames, both passes of guidance counted.

    Where the model masks frames, the calls group motions of similar length, and x0 is zero where
    none of a group needs it. With several `threads` the calls run side by side, on a CPU.
    """
    mask = length_mask(lengths, frames)
    if model.config.arch == "gru":  # its recurrence runs over the batch, which must stay whole
        return guided_denoiser(model, condition, mask, guidance)
    trim = model.config.mask_frames
    groups = balanced_groups(lengths.tolist(), frames, trim, budget // 2, threads)
    if len(groups) == 1 and groups[0][1] == frames:
        return guided_denoiser(model, condition, mask, guidance)
    calls = []
    for numbers, size in groups:
        rows = torch.tensor(numbers, device=mask.device)
        part = guided_denoiser(model, condition[rows], mask[rows, :size], guidance)
        calls.append((rows, size, part))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        x0 = torch.zeros_like(x)

        def fill(rows: Tensor, size: int, part: Denoiser) -> None:
            x0[rows, :size] = part(x[rows, :size], t[rows])

        # with gradients, several threads would write one graph
        alone = torch.is_grad_enabled() or len(calls) == 1
        run_side_by_side([partial(fill, *call) for call in calls], 1 if alone else threads)
        return x0

    return denoise
