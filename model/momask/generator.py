"""MoMask behind the generator seam: masked tokens of the base layer, decoded by frozen networks.

What MoMask with SoPo optimises is not public; this is the project's own definition. Of a motion
with N base tokens a, m of them are hidden, the positions M,

    l(a; M) = -(1/m) sum over i in M of log p(a_i | a without M, caption)

and N l estimates -log p(a | caption) (model/momask/likelihood.py). Its logarithm splits into the
base layer's and those of the residual layers, so a frozen residual transformer cancels between
policy and reference: the base transformer alone is tuned. A sampled motion is scored by the ids
that were drawn, never by those of its decoded frames.
"""

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import KIT, Skeleton
from diffusion.sampling import SamplerOptions
from model.memory import rows_of, within_memory
from model.momask.checkpoints import MoMaskParts, load_momask
from model.momask.draws import Draws
from model.momask.likelihood import exact_weight, masked_count, masked_error, shared_mask
from model.momask.options_file import published_folder
from model.momask.run_files import load_run, save_run
from model.momask.sampling import TokenSampling, generate_base, generate_residual
from model.momask.transformers import BaseTransformer
from model.seam import Samples
from model.text.condition import Condition
from utils.devices import sampling
from utils.errors import UserError
from utils.masks import zero_padding

ITERATIONS = 10
SAMPLER = SamplerOptions("ancestral", ITERATIONS)  # there is one algorithm
GUIDANCE, KIT_GUIDANCE = 4.0, 2.0
WEIGHTINGS = ("constant", "elbo")


@dataclass
class MoMaskGenerator:
    """A `model.seam.Generator`; its samples are ids ``[B, n, Q]``, -1 beyond a length, with lengths
    in frames, multiples of a token's.

    `guidance` is the scale of the base layer; None = as published. `autocast` is the number type of
    the transformers in sampling (None = float32). `spill`: frames after a motion's length that hold
    what padding decodes to, as upstream's evaluation has it, not zeros. `mask_samples`: masks that
    an error averages. `weighting` of the number of hidden tokens: ``constant``, as the base
    transformer is trained, or ``elbo``, which makes the estimate of -log p exact in the mean.
    """

    model: BaseTransformer
    parts: MoMaskParts
    device: torch.device
    sampler: SamplerOptions = SAMPLER
    guidance: float | None = None
    autocast: torch.dtype | None = None
    compiled: bool = False
    spill: int = 0
    mask_samples: int = 1
    weighting: str = "constant"
    predicts: ClassVar[str] = "tokens"
    usual_candidates: ClassVar[int] = 4

    def __post_init__(self) -> None:
        """Raises UserError for options that have no counterpart here."""
        if self.compiled:
            raise UserError("--compile: MoMask's transformers are not compiled; leave it out")
        if self.sampler.name != SAMPLER.name:
            raise UserError(
                f"MoMask has one way of sampling; the sampler {self.sampler.name} is for diffusion"
            )
        if self.weighting not in WEIGHTINGS:
            raise UserError(f"omega {self.weighting} has no counterpart for tokens; use constant")

    @property
    def stats(self) -> Statistics:
        return self.parts.tokens.stats

    @property
    def skeleton(self) -> Skeleton:
        return self.parts.tokens.skeleton

    @property
    def unit(self) -> int:
        """Frames of a token."""
        return self.parts.tokens.unit

    @property
    def levels(self) -> int:
        """The tokens of the longest motion: `levels` times an error is a bound of -log p."""
        return self.parts.tokens.longest

    @property
    def padded_frames(self) -> None:
        """Any: motions are padded here."""
        return None

    def encode_text(self, captions: list[str]) -> Condition:
        return self.parts.text_encoder.encode(captions).to(self.device)

    def encode(self, raw: Samples, rng: torch.Generator | None = None) -> Samples:
        return self.parts.tokens.encode(raw)

    def decode(self, samples: Samples) -> Samples:
        """The batch is decoded at its longest length, with nothing beyond a shorter one, as
        upstream's evaluation does: the end of a motion depends on that a little."""
        count = int(samples.frames.max()) // self.unit
        with torch.no_grad():
            rvq, ids = self.parts.tokens.rvq, samples.x[:, :count]
            decode = within_memory(lambda rows: partial(rvq.decode, ids[rows]), rows_of(ids))
            motion = decode()
        raw = self.stats.denormalize(motion)
        return Samples(zero_padding(raw, samples.frames + self.spill), samples.lengths)

    def blank(self, lengths: Tensor) -> Samples:
        """Samples of these lengths ``[B]``, cut to whole tokens, with nothing in them."""
        lengths = self.parts.tokens.whole_tokens(lengths)
        layers = self.parts.tokens.vocabulary.layers
        shape = (len(lengths), int(lengths.max()) // self.unit, layers)
        return Samples(torch.full(shape, -1, device=self.device), lengths)

    def noise(self, samples: Samples, rng: torch.Generator | None) -> Tensor:
        """Uniform numbers ``[B, S, 1 + n]`` for S masks: how many tokens, and which."""
        shape = (len(samples), self.mask_samples, 1 + samples.x.shape[1])
        return torch.rand(shape, generator=rng, device=self.device)

    def mask_times(self, t: Tensor, noise: Tensor) -> Tensor:
        """u ``[B, S]`` of the levels t ``[B]``, each uniform in (0, 1]; a high level hides much.

        The first lies in its level; the S of a row are evenly spread, modulo 1.
        """
        rounds = torch.arange(noise.shape[1], device=noise.device) / noise.shape[1]
        place = (t.unsqueeze(1) + noise[..., 0]) / self.levels + rounds
        return 1 - place.frac()

    def error(self, samples: Samples, t: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """w N l(a; M) / `levels` ``[B]``, a mean over the masks that t and noise decide.

        Conditional logits, without guidance or filter. Times `levels` it estimates -log p, so
        that T omega of Eq. 17 becomes N w.
        """
        masks, longest = noise.shape[1], int(samples.frames.max()) // self.unit
        valid = self.parts.tokens.valid(samples.frames, longest)
        valid = valid.repeat_interleave(masks, dim=0)
        tokens = valid.sum(1)
        count = masked_count(self.mask_times(t, noise).flatten(), tokens)
        mask = shared_mask(noise[..., 1 : 1 + longest].flatten(0, 1), count, valid)
        ids = samples.x[:, :longest, 0].repeat_interleave(masks, dim=0)
        text = _text(condition).repeat_interleave(masks, dim=0)
        error = masked_error(self.model, ids, mask, text, valid) * tokens / self.levels
        if self.weighting == "elbo":
            error = error * exact_weight(count, tokens)
        return error.view(-1, masks).mean(dim=1)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        like: Samples,
        rng: torch.Generator | None = None,
        start: float = 1.0,
    ) -> Samples:
        """With `start` < 1 that share of the base ids of `like`, taken at random, is drawn anew,
        and all ids of the residual layers."""
        count = int(like.frames.max()) // self.unit
        valid, text = self.parts.tokens.valid(like.frames, count), _text(condition)
        draws, options = Draws(rng, self.device), self.token_sampling
        given = None
        if start < 1:
            hidden = (start * valid.sum(1)).round().clamp_min(1)
            again = shared_mask(draws.uniform(*valid.shape), hidden, valid)
            given = like.x[:, :count, 0].masked_fill(again, -1)
        with sampling(self.model, self.device, self.autocast):
            base = generate_base(self.model, text, valid, options, draws, given)
            ids = generate_residual(self.parts.residual, base, text, valid, options, draws)
        missing = like.x.shape[1] - count
        return Samples(F.pad(ids, (0, 0, 0, missing), value=-1), like.lengths)

    @property
    def token_sampling(self) -> TokenSampling:
        """The published settings with this generator's iterations and guidance."""
        published = KIT_GUIDANCE if self.skeleton == KIT else GUIDANCE
        return TokenSampling(
            iterations=self.sampler.steps or ITERATIONS,
            guidance=published if self.guidance is None else self.guidance,
        )

    @torch.no_grad()
    def draw_lengths(self, condition: Condition, rng: torch.Generator | None = None) -> Tensor:
        """Frames ``[B]`` that suit the captions. Raises UserError without a length estimator."""
        if self.parts.lengths is None:
            raise UserError("this MoMask has no length estimator; pass --motion_length SECONDS")
        tokens = self.parts.lengths.sample(_text(condition), Draws(rng, self.device))
        return tokens.clamp(1, self.levels) * self.unit

    def signal(self, t: Tensor) -> Tensor:
        """Share of the tokens that is not hidden in the middle of the levels t ``[B]``."""
        return 1 - torch.sin((t + 0.5) / self.levels * math.pi / 2)

    def frozen(self) -> "MoMaskGenerator":
        return self.with_model(copy.deepcopy(self.model).eval().requires_grad_(False))

    def with_model(self, model: BaseTransformer) -> "MoMaskGenerator":
        """The same generator around other weights of the base transformer."""
        return replace(self, model=model)

    def save(
        self, folder: Path, step: int, average: nn.Module | None, args: dict[str, Any]
    ) -> Path:
        return save_run(folder, step, self.parts, average or self.model, args)


def load_momask_generator(
    model_path: Path, device: torch.device | str, text_encoder_path: str = ""
) -> MoMaskGenerator:
    """The file of a base transformer in a published folder, or a checkpoint of a run.

    Only the base transformer keeps its gradients. Raises UserError for whatever is missing or does
    not fit.
    """
    load = load_momask if published_folder(model_path) else load_run
    parts = load(model_path, device, text_encoder_path)
    for network in (parts.tokens.rvq, parts.residual, parts.lengths):
        if network is not None:
            network.requires_grad_(False)
    return MoMaskGenerator(parts.base, parts, torch.device(device))


def _text(condition: Condition) -> Tensor:
    """The one vector per caption ``[B, E]``."""
    return condition.tokens[:, 0]
