"""The motion VAE of MLD and MotionLCM, with upstream's parameter names.

A motion becomes n latent tokens, one of width 256 in MLD (2023) and MotionLCM v1, 16 of width 32
in v2, which projects between the transformer's width and the latent one. Sources: Chen et al.,
CVPR 2023; Dai et al., "MotionLCM", ECCV 2024, and their public implementations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.distribution import Distribution
from model.latent.skip_transformer import (
    LearnedPositions,
    SkipDecoder,
    SkipEncoder,
    SkipTransformerConfig,
)
from utils.errors import UserError
from utils.masks import length_mask


@dataclass(frozen=True)
class VAEConfig(SkipTransformerConfig):
    """projected: linear layers between hidden_dim and latent_dim, which are equal without them."""

    num_features: int = 263
    latent_tokens: int = 1
    latent_dim: int = 256
    projected: bool = False


class MotionVAE(nn.Module):
    """Normalised motions ``[B, T, D]`` to latents ``[B, n, d]`` and back."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        hidden, latent = config.hidden_dim, config.latent_dim
        if latent != hidden and not config.projected:
            raise UserError(f"latents of width {latent} need projections to the width {hidden}")
        self.skel_embedding = nn.Linear(config.num_features, hidden)
        self.global_motion_token = nn.Parameter(torch.randn(2 * config.latent_tokens, hidden))
        self.query_pos_encoder = LearnedPositions(config.max_positions, hidden)
        self.query_pos_decoder = LearnedPositions(config.max_positions, hidden)
        self.encoder = SkipEncoder(config)
        self.decoder = SkipDecoder(config)
        # here `pre` leads to the latents, in the denoiser away from them; the names are upstream's
        self.latent_pre = nn.Linear(hidden, latent) if config.projected else nn.Identity()
        self.latent_post = nn.Linear(latent, hidden) if config.projected else nn.Identity()
        self.final_layer = nn.Linear(hidden, config.num_features)

    @property
    def max_frames(self) -> int:
        """The longest motion, by the table of positions."""
        return self.config.max_positions - 2 * self.config.latent_tokens

    def check_length(self, frames: int) -> None:
        """Raises UserError for more frames than there are positions."""
        if frames > self.max_frames:
            raise UserError(
                f"a motion of {frames} frames is longer than this VAE's positions allow, "
                f"{self.max_frames} frames; ask for a shorter one"
            )

    def distribution(self, motion: Tensor, mask: Tensor) -> Distribution:
        """Of the latents ``[B, n, d]`` of normalised motions ``[B, T, D]``; mask ``[B, T]``,
        True = valid. Raises UserError when T exceeds `max_frames`."""
        self.check_length(motion.shape[1])
        tokens = self.global_motion_token.expand(len(motion), -1, -1)
        x = self.query_pos_encoder(torch.cat([tokens, self.skel_embedding(motion)], dim=1))
        hidden = nn.functional.pad(~mask, (tokens.shape[1], 0), value=False)
        encoded = self.latent_pre(self.encoder(x, hidden)[:, : tokens.shape[1]])
        return Distribution(*encoded.chunk(2, dim=1))

    def encode(self, motion: Tensor, lengths: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """A draw of the latents ``[B, n, d]``, as upstream uses them (never the mean).

        motion ``[B, T, D]`` normalised; lengths ``[B]``.
        """
        found = self.distribution(motion, length_mask(lengths, motion.shape[1]))
        shape, device = found.mean.shape, found.mean.device
        return found.sample(torch.randn(shape, generator=rng, device=device))

    def decode(self, latent: Tensor, lengths: Tensor, frames: int | None = None) -> Tensor:
        """Normalised motions ``[B, T, D]``, zero beyond the lengths ``[B]``.

        T is `frames`, or the longest length. Raises UserError when it exceeds `max_frames`.
        """
        frames = int(lengths.max()) if frames is None else frames
        self.check_length(frames)
        mask = length_mask(lengths, frames)
        memory = self.latent_post(latent)
        queries = self.query_pos_decoder(memory.new_zeros(len(memory), frames, memory.shape[-1]))
        return self.final_layer(self.decoder(queries, memory, ~mask)) * mask.unsqueeze(-1)
