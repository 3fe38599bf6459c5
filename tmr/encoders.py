"""TMR's transformer encoder and decoder (ACTOR style), with upstream's parameter names.

Source: Petrovich et al., "TMR", ICCV 2023; the layout is that of ACTOR (2021).
"""

import torch
from torch import Tensor, nn

from model.layers import attention_bias, decoder_layer, encoder_layer
from utils.positions import sinusoidal_table


class PositionalEncoding(nn.Module):
    """Interleaved sinusoids ``[max_len, d]``; not part of the state dict."""

    pe: Tensor

    def __init__(self, width: int, dropout: float, max_len: int = 5000) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pe", sinusoidal_table(max_len, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add positions to ``[B, L, d]``."""
        return self.dropout(x + self.pe[: x.shape[1]])


class ActorEncoder(nn.Module):
    """A sequence ``[B, T, F]`` to mean and log variance ``[B, 2, d]`` (no VAE: ``[B, 1, d]``)."""

    def __init__(
        self,
        nfeats: int,
        vae: bool = True,
        latent_dim: int = 256,
        ff_size: int = 1024,
        num_layers: int = 6,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.nfeats = nfeats
        self.projection = nn.Linear(nfeats, latent_dim)
        self.tokens = nn.Parameter(torch.randn(2 if vae else 1, latent_dim))
        self.positions = PositionalEncoding(latent_dim, dropout)
        layer = nn.TransformerEncoderLayer(
            latent_dim, num_heads, ff_size, dropout, activation="gelu", batch_first=True
        )
        self.seqTransEncoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)

    def sequence(self, x: Tensor) -> Tensor:
        """What enters the transformer: distribution tokens, projected frames, positions."""
        tokens = self.tokens.expand(len(x), -1, -1)
        return self.positions(torch.cat([tokens, self.projection(x)], dim=1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """mask ``[B, T]``, True = valid."""
        count = len(self.tokens)
        padding = nn.functional.pad(~mask, (count, 0), value=False)
        x = self.sequence(x)
        bias = attention_bias(padding, x.dtype)
        for layer in self.seqTransEncoder.layers:
            x = encoder_layer(layer, x, bias)
        return x[:, :count]


class ActorDecoder(nn.Module):
    """A latent ``[B, d]`` to a sequence ``[B, T, F]``; zero where the mask is False."""

    def __init__(
        self,
        nfeats: int,
        latent_dim: int = 256,
        ff_size: int = 1024,
        num_layers: int = 6,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.positions = PositionalEncoding(latent_dim, dropout)
        layer = nn.TransformerDecoderLayer(
            latent_dim, num_heads, ff_size, dropout, activation="gelu", batch_first=True
        )
        self.seqTransDecoder = nn.TransformerDecoder(layer, num_layers)
        self.final_layer = nn.Linear(latent_dim, nfeats)

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        """mask ``[B, T]``, True = valid."""
        x = self.positions(z.new_zeros(len(z), mask.shape[1], z.shape[1]))
        bias = attention_bias(~mask, x.dtype)
        for layer in self.seqTransDecoder.layers:
            x = decoder_layer(layer, x, z.unsqueeze(1), bias, None)
        return self.final_layer(x) * mask.unsqueeze(-1)
