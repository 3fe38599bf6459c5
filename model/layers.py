"""Post-norm transformer layers as functions of PyTorch's own modules, whose parameters they read.

They compute what `nn.TransformerEncoderLayer` and `nn.TransformerDecoderLayer` do, without the
copies of queries, keys and values and with the attention kernel that suits the processor.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.text.encoders import KINDS
from utils.errors import UserError
from utils.options import option


@dataclass
class TransformerOptions:
    """Sizes of a transformer that reads captions."""

    text_encoder_type: str = option("clip", "text encoder", choices=KINDS)
    latent_dim: int = option(512, "width of the transformer", minimum=8, maximum=8192)
    ff_size: int = option(1024, "width of the feed-forward layers", minimum=8, maximum=32768)
    layers: int = option(8, "transformer layers", minimum=1, maximum=256)
    num_heads: int = option(4, "attention heads", minimum=1, maximum=256)
    dropout: float = option(0.1, "dropout in training", minimum=0, maximum=0.99)

    def validate(self) -> None:
        """Raises UserError unless heads, and sines and cosines, share the width evenly."""
        if self.latent_dim % self.num_heads or self.latent_dim % 2:
            raise UserError(
                f"--latent_dim {self.latent_dim} must be even and a multiple of --num_heads "
                f"{self.num_heads}"
            )


def length_mask(lengths: Tensor, frames: int) -> Tensor:
    """``[B]`` -> ``[B, frames]``, True = valid."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def attention_bias(hidden: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Positions to hide ``[B, S]`` (True = hidden) to what is added to the scores
    ``[B, 1, 1, S]``: 0 or -infinity."""
    if hidden is None:
        return None
    bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return bias.masked_fill(hidden, float("-inf"))[:, None, None]


def encoder_layer(layer: nn.TransformerEncoderLayer, x: Tensor, bias: Tensor | None) -> Tensor:
    """Self-attention and feed-forward on x ``[B, L, d]``."""
    x = layer.norm1(x + layer.dropout1(attend(layer.self_attn, x, x, bias)))
    return layer.norm2(x + layer.dropout2(_feed_forward(layer, x)))


def decoder_layer(
    layer: nn.TransformerDecoderLayer,
    x: Tensor,
    memory: Tensor,
    bias: Tensor | None,
    memory_bias: Tensor | None,
) -> Tensor:
    """Attention of x ``[B, L, d]`` to itself and to memory ``[B, S, d]``, and feed-forward."""
    x = layer.norm1(x + layer.dropout1(attend(layer.self_attn, x, x, bias)))
    x = layer.norm2(x + layer.dropout2(attend(layer.multihead_attn, x, memory, memory_bias)))
    return layer.norm3(x + layer.dropout3(_feed_forward(layer, x)))


def _feed_forward(
    layer: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer, x: Tensor
) -> Tensor:
    return layer.linear2(layer.dropout(layer.activation(layer.linear1(x))))


def attend(
    attention: nn.MultiheadAttention, x: Tensor, memory: Tensor, bias: Tensor | None
) -> Tensor:
    """Multi-head attention ``[B, L, d]`` of x ``[B, L, d]`` to memory ``[B, S, d]``."""
    width, heads = attention.embed_dim, attention.num_heads
    weight, offset = attention.in_proj_weight, attention.in_proj_bias
    if memory is x:
        query, key, value = _heads(F.linear(x, weight, offset), 3, heads)
    else:
        (query,) = _heads(F.linear(x, weight[:width], offset[:width]), 1, heads)
        key, value = _heads(F.linear(memory, weight[width:], offset[width:]), 2, heads)
    dropout = attention.dropout if attention.training else 0.0
    # On the CPU, PyTorch's fused kernel takes twice as long as two plain products in bfloat16.
    plain = query.device.type == "cpu" and query.dtype == torch.bfloat16
    kernel = _two_products if plain else F.scaled_dot_product_attention
    if bias is not None:
        bias = bias.to(query.dtype)
    mixed = kernel(query, key, value, bias, dropout)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _heads(projected: Tensor, count: int, heads: int) -> tuple[Tensor, ...]:
    """``[B, L, count * d]`` to `count` views ``[B, heads, L, d / heads]``."""
    return projected.unflatten(-1, (count, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _two_products(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v with ``[B, heads, L or S, d]``."""
    batch, heads, length, width = query.shape
    q, k, v = (tensor.flatten(0, 1) for tensor in (query, key, value))
    if bias is None:
        bias = query.new_zeros(1, 1, 1)
    else:
        bias = bias.expand(-1, heads, -1, -1).flatten(0, 1)
    with torch.autocast(query.device.type, enabled=False):  # it would widen the softmax
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)
        weights = F.dropout(scores.softmax(dim=-1), dropout)
        return torch.bmm(weights, v).view(batch, heads, length, width)
