"""MDM behind the generator seam: x0 prediction in the space of normalised motion features."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton, skeleton_for_dim
from diffusion.gaussian import GaussianDiffusion, masked_mse
from diffusion.samplers import Denoiser, NoiseSource, noise_from
from diffusion.sampling import SamplerOptions, StartPoint
from diffusion.schedule import make_schedule, respace
from model.checkpoint_files import load_stats, read_model_args
from model.compiled import CompiledNetwork
from model.lora import LORA_FILE, frozen_copy, merged, save_lora
from model.mdm.batching import grouped_denoiser
from model.mdm.checkpoints import config_from_args, load_weights, save_checkpoint
from model.mdm.network import MDM, MDMConfig
from model.seam import Samples
from model.text.encoders import (
    CachedTextEncoder,
    Condition,
    PooledEncoder,
    TextEncoder,
    build_text_encoder,
)
from model.weights import check_size, transformer_weights
from utils.devices import sampling
from utils.errors import UserError
from utils.masks import match_frames, zero_padding

# The most frames of one network call, both passes counted: on a CPU, where caches are small and a
# core may make a call of its own; 330 full-length motions on a GPU, or fewer by its memory.
FRAMES_PER_CALL = {"cpu": 4096, "cuda": 65_536}


GUIDANCE = 2.5


class NoText:
    """The text encoder of an unconstrained model: one empty token."""

    width, pooled = 1, True

    def encode(self, captions: list[str]) -> Condition:
        return Condition(torch.zeros(len(captions), 1, 1), torch.ones(len(captions), 1).bool())


@dataclass
class MDMGenerator:
    """A `model.seam.Generator`; its samples are motions ``[B, T, D]`` normalised by `stats`.

    `guidance` is the scale of classifier-free guidance, `autocast` the number type of sampling
    (None = float32), `compiled` samples through `torch.compile`. `spill`: frames after a motion's
    length that are kept as sampled, where a reader needs them; all later ones are zero.
    """

    model: MDM
    diffusion: GaussianDiffusion
    stats: Statistics
    text_encoder: TextEncoder
    skeleton: Skeleton
    device: torch.device
    sampler: SamplerOptions = SamplerOptions()
    guidance: float = GUIDANCE
    autocast: torch.dtype | None = None
    compiled: bool = False
    spill: int = 0
    predicts: ClassVar[str] = "x0"
    usual_candidates: ClassVar[int] = 4  # K of the paper's MDM

    @property
    def levels(self) -> int:
        return self.diffusion.schedule.num_timesteps

    @property
    def padded_frames(self) -> int | None:
        """A model that masks frames never sees padding; another one was trained at full length."""
        return None if self.model.config.mask_frames else self.skeleton.max_length

    def encode_text(self, captions: list[str]) -> Condition:
        return self.text_encoder.encode(captions).to(self.device)

    def encode(self, raw: Samples, rng: torch.Generator | None = None) -> Samples:
        """Normalised by the model's own statistics, zero beyond the lengths as in training."""
        x = zero_padding(self.stats.normalize(raw.x), raw.frames)
        return Samples(match_frames(x, max(x.shape[1], self.padded_frames or 0)), raw.lengths)

    def decode(self, samples: Samples) -> Samples:
        raw = self.stats.denormalize(samples.x)
        return Samples(zero_padding(raw, samples.frames + self.spill), samples.lengths)

    def blank(self, lengths: Tensor) -> Samples:
        """Samples of these lengths ``[B]`` with nothing in them, for `sample` to be like."""
        shape = (len(lengths), int(lengths.max()), self.stats.feature_dim)
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
        """Masked mean squared error ``[B]`` of the predicted x0 (MDM, Eq. 2).

        drop_text ``[B]``: samples whose caption is hidden (base training only).
        """
        x_t = self.diffusion.q_sample(samples.x, t, noise)
        original = self.diffusion.schedule.timestep_map.to(t.device)[t]
        x0 = self.model(x_t, original, condition, samples.mask, drop_text)
        return masked_mse(x0.float(), samples.x, samples.mask)

    def sample(
        self,
        condition: Condition,
        like: Samples,
        rng: torch.Generator | None = None,
        start: float = 1.0,
    ) -> Samples:
        """Motions that are zero beyond their length (and `spill`), as those of a dataset are: a
        model without frame masking sees those frames."""
        x = self.draw(condition, like.frames, rng, start=StartPoint(like.x, start))
        x = zero_padding(match_frames(x, like.x.shape[1]), like.frames + self.spill)
        return Samples(x, like.lengths)

    @torch.no_grad()
    def draw(
        self,
        condition: Condition,
        lengths: Tensor,
        rng: torch.Generator | None = None,
        noise: Tensor | None = None,
        step_noise: NoiseSource | None = None,
        start: StartPoint | None = None,
    ) -> Tensor:
        """Motions ``[B, T, D]`` with T = the longest length; `spill` frames beyond a length are
        as sampled, later ones may be zero.

        A model without frame masking has only ever seen sequences of the full training length, so
        it samples that many frames, which are then cut. `noise` fixes x_T ``[B, T', D]`` and
        `step_noise` what the sampler adds.
        """
        frames = int(lengths.max())
        size = max(frames, self.padded_frames or 0)
        shape = (len(condition), size, self.stats.feature_dim)
        x = noise
        if x is None:
            x = torch.randn(shape, generator=rng, device=self.device)
        if x.shape != shape:
            raise ValueError(f"noise has shape {tuple(x.shape)}, this call samples {shape}")
        diffusion = self._respaced()
        first = None
        if start is not None and start.share < 1:
            first, x = StartPoint(match_frames(start.x, size), start.share).noised(diffusion, x)
        denoise = self.denoiser(condition, lengths, size)
        with sampling(self.model, self.device, self.autocast):
            x = self.sampler.run(denoise, diffusion, x, step_noise or noise_from(rng, x), first)
        return x[:, :frames]

    def signal(self, t: Tensor) -> Tensor:
        return self.diffusion.schedule.alphas_cumprod.to(t.device, torch.float32)[t]

    def frozen(self) -> "MDMGenerator":
        return self.with_model(frozen_copy(self.model))

    def with_model(self, model: MDM) -> "MDMGenerator":
        """The same generator around other weights."""
        return replace(self, model=model)

    def save(
        self, folder: Path, step: int, average: nn.Module | None, args: dict[str, Any]
    ) -> Path:
        """With adapters, the merged network, and beside it the newest adapters alone."""
        mean = None if average is None else merged(average)
        path = save_checkpoint(folder, step, merged(self.model), self.stats, mean, args)
        save_lora(folder / LORA_FILE, average or self.model)
        return path

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

    def denoiser(self, condition: Condition, lengths: Tensor, frames: int) -> Denoiser:
        """x0 ``[B, frames, D]`` as sampling asks the network for it."""
        return grouped_denoiser(
            self._network,
            condition,
            lengths,
            frames,
            guidance=self._guidance(),
            budget=self._budget(),
            threads=self._threads(),
            spill=self.spill,
        )

    def denoising(self, condition: Condition, like: Samples) -> tuple[Denoiser, GaussianDiffusion]:
        """What a sampler runs on: x0 of motions shaped like `like`, and the executed steps."""
        return self.denoiser(condition, like.frames, like.x.shape[1]), self._respaced()

    def _guidance(self) -> float:
        """Guidance needs a model that was trained with dropped captions."""
        config = self.model.config
        return 1.0 if config.unconstrained or config.cond_mask_prob == 0 else self.guidance

    def _respaced(self) -> GaussianDiffusion:
        """The diffusion with the steps that are executed."""
        schedule = self.diffusion.schedule
        kept = self.sampler.kept_steps(schedule)
        if len(kept) == schedule.num_timesteps:
            return self.diffusion
        return GaussianDiffusion(respace(schedule, kept), self.model.config.sigma_small)


def build_generator(
    config: MDMConfig,
    stats: Statistics,
    skeleton: Skeleton,
    device: torch.device | str,
    text_encoder_path: str = "",
    autocast: torch.dtype | None = None,
) -> MDMGenerator:
    """A generator with new weights."""
    encoder = _text_encoder(config, text_encoder_path, device)
    width = None if config.unconstrained else encoder.width
    model = MDM(config, stats.feature_dim, width).to(device)
    schedule = make_schedule(config.noise_schedule, config.diffusion_steps)
    return MDMGenerator(
        model,
        GaussianDiffusion(schedule, config.sigma_small),
        stats.to(device),
        encoder,
        skeleton,
        torch.device(device),
        autocast=autocast,
    )


def _text_encoder(config: MDMConfig, path: str, device: torch.device | str) -> TextEncoder:
    """Tokens are usable by the decoder only; other layouts take one vector per caption."""
    if config.unconstrained:
        return NoText()
    if config.text_encoder_type == "bert" and config.arch != "trans_dec":
        raise UserError("--text_encoder_type bert needs --arch trans_dec (it gives many tokens)")
    encoder = build_text_encoder(config.text_encoder_type, path or None, device)
    if not encoder.pooled and config.arch != "trans_dec":
        encoder = PooledEncoder(encoder)
    return CachedTextEncoder(encoder)


def load_mdm(
    model_path: Path,
    device: torch.device | str,
    data_dir: str = "",
    text_encoder_path: str = "",
) -> MDMGenerator:
    """A published or own checkpoint, in eval mode.

    The statistics come from ``stats.npz`` beside it, else from the dataset that ``args.json``
    names (its Mean.npy and Std.npy). Raises UserError for whatever is missing or does not fit.
    """
    args = read_model_args(model_path)
    config = config_from_args(args)
    weights = transformer_weights(config.layers, config.latent_dim, config.ff_size)
    check_size(weights, model_path.stat().st_size, str(model_path))
    stats = load_stats(model_path, args, data_dir)
    skeleton = skeleton_for_dim(stats.feature_dim)
    if skeleton is None:
        raise UserError(f"{model_path}: no skeleton has {stats.feature_dim} features")
    generator = build_generator(config, stats, skeleton, device, text_encoder_path)
    load_weights(generator.model, model_path, use_ema=bool(args.get("use_ema", False)))
    generator.model.eval()
    return generator
