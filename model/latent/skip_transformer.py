"""Transformer with U-Net-like skips, the trunk of MLD's motion VAE and denoiser.

Source: Chen et al., "Executing your Commands via Motion Diffusion in Latent Space", CVPR 2023, and
its public implementation, whose parameter names are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from model.layers import attention_bias, decoder_layer, encoder_layer
from utils.errors import UserError


@dataclass(frozen=True)
class SkipTransformerConfig:
    """Sizes that the VAE and the denoiser have alike; the defaults are the published ones.

    max_positions: rows of the learned table of positions.
    """

    hidden_dim: int = 256
    ff_size: int = 1024
    layers: int = 9
    num_heads: int = 4
    dropout: float = 0.1
    max_positions: int = 500


class LearnedPositions(nn.Module):
    """A trained vector per position, ``pe [max_len, 1, h]``."""

    def __init__(self, max_len: int, width: int) -> None:
        super().__init__()
        self.pe = nn.Parameter(torch.rand(max_len, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Add positions to ``[B, L, h]``."""
        return x + self.pe[: x.shape[1], 0]


class SkipTransformer(nn.Module):
    """Blocks whose second half reads the outputs of the first half, the latest first."""

    def __init__(self, block: Callable[[], nn.Module], config: SkipTransformerConfig) -> None:
        super().__init__()
        if config.layers % 2 == 0:
            raise UserError(f"--layers {config.layers} must be odd, for skips in pairs")
        half, width = config.layers // 2, config.hidden_dim
        self.input_blocks = nn.ModuleList(block() for _ in range(half))
        self.middle_block = block()
        self.output_blocks = nn.ModuleList(block() for _ in range(half))
        self.linear_blocks = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(half))
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def run(self, apply: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> Tensor:
        """x ``[B, L, h]`` through all blocks, each by ``apply(block, x)``."""
        skips: list[Tensor] = []
        for block in self.input_blocks:
            x = apply(block, x)
            skips.append(x)
        x = apply(self.middle_block, x)
        for linear, block in zip(self.linear_blocks, self.output_blocks, strict=True):
            x = apply(block, linear(torch.cat([x, skips.pop()], dim=-1)))
        return self.norm(x)


class SkipEncoder(SkipTransformer):
    """Blocks of self-attention."""

    def __init__(self, config: SkipTransformerConfig) -> None:
        super().__init__(partial(nn.TransformerEncoderLayer, **_block_options(config)), config)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x ``[B, L, h]``; hidden ``[B, L]``: positions that no other attends to (True)."""
        bias = attention_bias(hidden, x.dtype)
        return self.run(lambda block, x: encoder_layer(block, x, bias), x)


class SkipDecoder(SkipTransformer):
    """Blocks that attend to themselves and to a memory, the same for all."""

    def __init__(self, config: SkipTransformerConfig) -> None:
        super().__init__(partial(nn.TransformerDecoderLayer, **_block_options(config)), config)

    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x ``[B, L, h]``, memory ``[B, S, h]``; hidden ``[B, L]`` as in `SkipEncoder`."""
        bias = attention_bias(hidden, x.dtype)
        return self.run(lambda block, x: decoder_layer(block, x, memory, bias, None), x)


def _block_options(config: SkipTransformerConfig) -> dict[str, object]:
    return {
        "d_model": config.hidden_dim,
        "nhead": config.num_heads,
        "dim_feedforward": config.ff_size,
        "dropout": config.dropout,
        "activation": "gelu",
        "batch_first": True,
    }
