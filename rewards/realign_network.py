"""ReAlign's step-aware reward network, with upstream's parameter names.

Two towers of MLD's blocks, one for motions and one for T5's tokens, into one latent space, and a
decoder that only training uses. Either tower can be told how noised the motion is. Source: Weng et
al., "ReAlign", AAAI 2026, and its public implementation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.distribution import Distribution
from model.latent.denoiser import TimestepEmbedding, timestep_sinusoid
from model.latent.skip_transformer import (
    LearnedPositions,
    SkipDecoder,
    SkipEncoder,
    SkipTransformerConfig,
)
from utils.errors import UserError


@dataclass(frozen=True)
class RealignConfig(SkipTransformerConfig):
    """num_features of a motion's frame, text_dim of a caption's token, time_dim of the step's
    sinusoid."""

    num_features: int = 263
    text_dim: int = 1024
    time_dim: int = 512

    @staticmethod
    def of_state(state: Mapping[str, Tensor]) -> "RealignConfig":
        """The sizes of a state dict; attention heads are as published, no tensor tells them.

        Raises KeyError for a tensor that is missing.
        """
        blocks = {key.split(".")[2] for key in state if key.startswith("motion_encoder.input_bl")}
        return RealignConfig(
            hidden_dim=len(state["skel_embedding.weight"]),
            ff_size=len(state["motion_encoder.middle_block.linear1.weight"]),
            layers=2 * len(blocks) + 1,
            max_positions=len(state["query_motion_pos_encoder.pe"]),
            num_features=state["skel_embedding.weight"].shape[1],
            text_dim=state["text_embedding.weight"].shape[1],
            time_dim=state["time_embedding.linear_1.weight"].shape[1],
        )


class RealignNetwork(nn.Module):
    """Normalised motions ``[B, T, D]`` and text tokens ``[B, L, E]`` to latents ``[B, d]``.

    Masks ``[B, T]`` and ``[B, L]`` are True where valid; steps ``[B]`` are those of the noising
    process, or None for a tower that is not told. The towers share one final LayerNorm.
    """

    def __init__(self, config: RealignConfig) -> None:
        super().__init__()
        self.config = config
        width, places = config.hidden_dim, config.max_positions
        self.global_motion_token = nn.Parameter(torch.randn(1, width))
        self.global_text_token = nn.Parameter(torch.randn(1, width))
        self.query_motion_pos_encoder = LearnedPositions(places, width)
        self.query_text_pos_encoder = LearnedPositions(places, width)
        self.query_pos_decoder = LearnedPositions(places, width)
        self.motion_encoder = SkipEncoder(config)
        self.text_encoder = SkipEncoder(config)
        self.text_encoder.norm = self.motion_encoder.norm
        self.decoder = SkipDecoder(config)
        self.dist_motion_layer = nn.Linear(width, 2 * width)
        self.dist_text_layer = nn.Linear(width, 2 * width)
        self.skel_embedding = nn.Linear(config.num_features, width)
        self.text_embedding = nn.Linear(config.text_dim, width)
        self.final_layer = nn.Linear(width, config.num_features)
        self.time_embedding = TimestepEmbedding(config.time_dim, width, guidance_dim=0)

    def embed_steps(self, steps: Tensor) -> Tensor:
        """``[B]`` -> ``[B, d]``."""
        return self.time_embedding(timestep_sinusoid(steps, self.config.time_dim))

    def motion_distribution(
        self, motion: Tensor, mask: Tensor, steps: Tensor | None = None
    ) -> Distribution:
        token, embedded = self.global_motion_token, self.skel_embedding(motion)
        x, hidden = self._sequence(token, embedded, mask, steps)
        encoded = self.motion_encoder(self.query_motion_pos_encoder(x), hidden)[:, 0]
        return Distribution(*self.dist_motion_layer(encoded).float().chunk(2, dim=-1))

    def text_distribution(
        self, tokens: Tensor, mask: Tensor, steps: Tensor | None = None
    ) -> Distribution:
        token, embedded = self.global_text_token, self.text_embedding(tokens)
        x, hidden = self._sequence(token, embedded, mask, steps)
        encoded = self.text_encoder(self.query_text_pos_encoder(x), hidden)[:, 0]
        return Distribution(*self.dist_text_layer(encoded).float().chunk(2, dim=-1))

    def _sequence(
        self, token: Tensor, embedded: Tensor, mask: Tensor, steps: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """[token, step if told, embedded] and its padding; without a step the rest moves up.

        Raises UserError when there are more of them than positions.
        """
        parts = [token.expand(len(embedded), 1, -1)]
        if steps is not None:
            parts.append(self.embed_steps(steps).unsqueeze(1))
        x = torch.cat([*parts, embedded], dim=1)
        if x.shape[1] > self.config.max_positions:
            raise UserError(
                f"a sequence of {embedded.shape[1]} frames or words is too long for this reward, "
                f"which has {self.config.max_positions} positions"
            )
        return x, nn.functional.pad(~mask, (len(parts), 0), value=False)

    def decode(self, latent: Tensor, mask: Tensor) -> Tensor:
        """Motion ``[B, T, D]`` of a latent ``[B, d]``, zero where the mask ``[B, T]`` is False."""
        queries = self.query_pos_decoder(latent.new_zeros(*mask.shape, latent.shape[-1]))
        decoded = self.decoder(queries, latent.unsqueeze(1), ~mask)
        return self.final_layer(decoded) * mask.unsqueeze(-1)
