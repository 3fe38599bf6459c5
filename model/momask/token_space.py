"""The tokens of one RVQ: what turns raw motions into ids, and which of them are valid."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from model.momask.rvq import RVQVAE
from model.momask.transformers import Vocabulary
from model.seam import Samples
from utils.errors import UserError
from utils.masks import length_mask, match_frames, zero_padding


@dataclass(frozen=True)
class TokenSpace:
    """What turns motions into tokens and back: the RVQ, its statistics, and its folder."""

    rvq: RVQVAE
    stats: Statistics
    skeleton: Skeleton
    folder: Path

    @property
    def vocabulary(self) -> Vocabulary:
        config = self.rvq.config
        return Vocabulary(config.nb_code, config.code_dim, config.num_quantizers)

    @cached_property
    def digest(self) -> str:
        """Of all codes: tokens of one digest mean the same."""
        codes = [layer.codebook.cpu().numpy().tobytes() for layer in self.rvq.quantizer.layers]
        return hashlib.sha256(b"".join(codes)).hexdigest()[:16]

    @property
    def unit(self) -> int:
        """Frames of a token."""
        return self.rvq.config.frames_per_token

    @property
    def longest(self) -> int:
        """Tokens of the longest motion."""
        return self.skeleton.max_length // self.unit

    def whole_tokens(self, lengths: Tensor) -> Tensor:
        """Frames ``[B]`` cut to a multiple of a token's, at least one token."""
        return (lengths // self.unit).clamp_min(1) * self.unit

    def valid(self, lengths: Tensor, tokens: int) -> Tensor:
        """``[B, tokens]``, True inside the lengths ``[B]`` in frames."""
        return length_mask(lengths // self.unit, tokens)

    def encode(self, raw: Samples) -> Samples:
        """Ids ``[B, longest, Q]`` of raw motions, -1 beyond the lengths.

        Motions are padded to the longest length, on which the ids near their end depend. Raises
        UserError for longer ones.
        """
        frames = self.longest * self.unit
        if int(raw.frames.max()) > frames:
            raise UserError(
                f"a motion of {int(raw.frames.max())} frames is longer than MoMask's {frames}"
            )
        lengths = self.whole_tokens(raw.frames)
        x = zero_padding(self.stats.normalize(raw.x), lengths)
        with torch.autocast(x.device.type, enabled=False):  # ids must not depend on the precision
            ids = self.rvq.encode(match_frames(x, frames))
        outside = ~self.valid(lengths, self.longest)
        return Samples(ids.masked_fill(outside.unsqueeze(-1), -1), lengths)
