"""The latent denoiser of MLD, MotionLCM's MLD and its consistency student, upstream's names.

It predicts the noise in a latent from a step and a caption; the motion's length never enters.
Sources: Chen et al., CVPR 2023; Dai et al., "MotionLCM", ECCV 2024, and their implementations.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.latent.skip_transformer import LearnedPositions, SkipEncoder, SkipTransformerConfig
from model.text.condition import Condition
from utils.errors import UserError


@dataclass(frozen=True)
class DenoiserConfig(SkipTransformerConfig):
    """text_dim and time_dim: widths of the caption's tokens and of the sinusoid of the step.

    text_projected: a linear layer for the text, after a ReLU where text_relu is set; without it the
    text has the width hidden_dim. projected: linear layers between hidden_dim and latent_dim.
    guidance_dim: width of the guidance scale's embedding, 0 in models that are no consistency
    student.
    """

    latent_dim: int = 256
    text_dim: int = 768
    time_dim: int = 768
    text_relu: bool = True
    text_projected: bool = True
    projected: bool = False
    guidance_dim: int = 0


class TimestepEmbedding(nn.Module):
    """MLP of the step's sinusoid, to which a consistency student adds the guidance scale."""

    def __init__(self, time_dim: int, width: int, guidance_dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(time_dim, width)
        self.linear_2 = nn.Linear(width, width)
        if guidance_dim:
            self.cond_proj = nn.Linear(guidance_dim, time_dim, bias=False)

    def forward(self, sinusoid: Tensor, guidance: Tensor | None = None) -> Tensor:
        """``[B, time_dim]`` and the scale's embedding ``[B, guidance_dim]`` to ``[B, h]``."""
        if guidance is not None:
            sinusoid = sinusoid + self.cond_proj(guidance)
        return self.linear_2(nn.functional.silu(self.linear_1(sinusoid)))


class LatentDenoiser(nn.Module):
    """Noise ``[B, n, d]`` of noised latents ``[B, n, d]``."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        hidden, latent = config.hidden_dim, config.latent_dim
        if latent != hidden and not config.projected:
            raise UserError(f"latents of width {latent} need projections to the width {hidden}")
        if config.text_dim != hidden and not config.text_projected:
            raise UserError(f"text of width {config.text_dim} needs a projection to {hidden}")
        self.latent_pre = nn.Linear(latent, hidden) if config.projected else nn.Identity()
        self.latent_post = nn.Linear(hidden, latent) if config.projected else nn.Identity()
        self.time_embedding = TimestepEmbedding(config.time_dim, hidden, config.guidance_dim)
        self.emb_proj = nn.Identity()
        if config.text_projected:
            activation = nn.ReLU() if config.text_relu else nn.Identity()
            self.emb_proj = nn.Sequential(activation, nn.Linear(config.text_dim, hidden))
        self.query_pos = LearnedPositions(config.max_positions, hidden)
        self.encoder = SkipEncoder(config)

    def forward(
        self,
        z: Tensor,
        timesteps: Tensor,
        condition: Condition,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """z ``[B, n, d]``; timesteps ``[B]``, steps of the whole process; tokens ``[B, S, E]``.

        guidance ``[B]``: the scale of a consistency student, which other models do not take; None
        leaves its embedding out.
        """
        if guidance is not None:
            guidance = guidance_embedding(guidance, self.config.guidance_dim).to(z.dtype)
        sinusoid = timestep_sinusoid(timesteps, self.config.time_dim).to(z.dtype)
        time = self.time_embedding(sinusoid, guidance).unsqueeze(1)
        x = torch.cat([self.latent_pre(z), time, self.emb_proj(condition.tokens)], dim=1)
        encoded = self.encoder(self.query_pos(x), _hidden(condition, x.shape[1]))
        return self.latent_post(encoded[:, : z.shape[1]])


def _hidden(condition: Condition, length: int) -> Tensor | None:
    """Padding of the captions at the end of the sequence ``[B, length]``; one token has none."""
    size = condition.tokens.shape[1]
    if size == 1:
        return None
    return nn.functional.pad(~condition.mask, (length - size, 0), value=False)


def timestep_sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """cos and then sin of t w_i, w_i = 10000^(-i / half): ``[B]`` -> ``[B, width]``."""
    half = width // 2
    # the order of these operations is upstream's; at t = 999 their rounding shows
    rates = (-math.log(10000.0) * torch.arange(half, device=timesteps.device) / half).exp()
    angles = timesteps.float()[:, None] * rates
    return _pad_odd(torch.cat([angles.cos(), angles.sin()], dim=-1), width)


def guidance_embedding(scale: Tensor, width: int) -> Tensor:
    """sin and then cos of 1000 (s - 1) w_i, w_i = 10000^(-i / (half - 1)): ``[B]`` ->
    ``[B, width]`` (Luo et al., "Latent Consistency Models", 2023, as MotionLCM uses it)."""
    half = width // 2
    rates = (torch.arange(half, device=scale.device) * (-math.log(10000.0) / (half - 1))).exp()
    angles = 1000.0 * (scale - 1).float()[:, None] * rates
    return _pad_odd(torch.cat([angles.sin(), angles.cos()], dim=-1), width)


def _pad_odd(embedding: Tensor, width: int) -> Tensor:
    """A zero at the end where the width is odd, as upstream has it."""
    return nn.functional.pad(embedding, (0, width - embedding.shape[-1]))
