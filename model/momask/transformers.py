"""MoMask's base (masked) and residual transformer, with upstream's parameter names.

Source: Guo et al., "MoMask", CVPR 2024, sections 3.2 and 3.3, and its public implementation.
Ids are ``[B, n]``, text features ``[B, E]``, `valid` ``[B, n]`` is True inside the length, and
logits are ``[B, n, classes]``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import attention_bias, encoder_layer
from model.mdm.network import InputProcess, PositionalEncoding
from model.weights import transformer_weights
from utils.errors import UserError
from utils.options import option

POSITIONS = 5000  # rows of the positional table, which every checkpoint holds
INIT_STD = 0.02


@dataclass
class TransformerConfig:
    """Sizes, named as in ``opt.txt``; the defaults are those of the published models."""

    latent_dim: int = option(384, "width of the transformer", minimum=8, maximum=8192)
    ff_size: int = option(1024, "width of the feed-forward layers", minimum=8, maximum=32768)
    n_layers: int = option(8, "transformer layers", minimum=1, maximum=256)
    n_heads: int = option(6, "attention heads", minimum=1, maximum=256)
    dropout: float = option(0.2, "dropout in training", minimum=0, maximum=0.99)
    cond_drop_prob: float = option(
        0.1, "share of captions hidden in training", minimum=0, maximum=1
    )
    share_weight: bool = option(
        True, "residual transformer: a layer's ids are read and predicted with one table"
    )

    def validate(self) -> None:
        """Raises UserError where the heads do not share the width evenly."""
        if self.latent_dim % self.n_heads:
            raise UserError("n_heads does not divide latent_dim")

    @property
    def weights(self) -> int:
        """Of its layers' matrices."""
        return transformer_weights(self.n_layers, self.latent_dim, self.ff_size)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of an RVQ: codes per layer, width of a code, layers."""

    codes: int
    width: int
    layers: int


class OutputHead(nn.Module):
    """Linear, GELU, LayerNorm, Linear."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.poseFinal = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.poseFinal(self.LayerNorm(F.gelu(self.dense(x))))


class TokenTransformer(nn.Module):
    """What both transformers share: post-norm layers over [condition tokens, tokens]."""

    def __init__(
        self, config: TransformerConfig, vocabulary: Vocabulary, text_width: int, outputs: int
    ) -> None:
        super().__init__()
        self.config, self.vocabulary, self.text_width = config, vocabulary, text_width
        width = config.latent_dim
        self.input_process = InputProcess(vocabulary.width, width)
        self.position_enc = PositionalEncoding(width, config.dropout, POSITIONS)
        layer = nn.TransformerEncoderLayer(
            width, config.n_heads, config.ff_size, config.dropout, "gelu", batch_first=True
        )
        self.seqTransEncoder = nn.TransformerEncoder(
            layer, config.n_layers, enable_nested_tensor=False
        )
        self.cond_emb = nn.Linear(text_width, width)
        self.output_process = OutputHead(width, outputs)

    def embed_text(self, text: Tensor, drop_text: Tensor | None) -> Tensor:
        """Condition token ``[B, 1, d]``; where drop_text ``[B]`` is True, the bias alone."""
        if drop_text is not None:
            text = text.masked_fill(drop_text.unsqueeze(-1), 0.0)
        return self.cond_emb(text).unsqueeze(1)

    def sequence(self, prefix: Tensor, embedded: Tensor) -> Tensor:
        """What enters the layers: prefix ``[B, p, d]`` without positions, then the tokens'
        embeddings ``[B, n, C]``, projected and with positions."""
        return torch.cat([prefix, self.position_enc(self.input_process(embedded))], dim=1)

    def run(self, prefix: Tensor, embedded: Tensor, valid: Tensor) -> Tensor:
        """Head outputs ``[B, n, outputs]`` of the tokens."""
        count = prefix.shape[1]
        x = self.sequence(prefix, embedded)
        bias = attention_bias(F.pad(~valid, (count, 0), value=False), x.dtype)
        for layer in self.seqTransEncoder.layers:
            x = encoder_layer(layer, x, bias)
        return self.output_process(x[:, count:])


class BaseTransformer(TokenTransformer):
    """Ids of layer 0 from partly masked ones. Ids 0..V-1 are codes, then mask and pad."""

    def __init__(
        self, config: TransformerConfig, vocabulary: Vocabulary, text_width: int = 512
    ) -> None:
        super().__init__(config, vocabulary, text_width, vocabulary.codes)
        self.mask_id, self.pad_id = vocabulary.codes, vocabulary.codes + 1
        self.token_emb = nn.Embedding(vocabulary.codes + 2, vocabulary.width)
        self.apply(_initialise)

    def forward(
        self, ids: Tensor, text: Tensor, valid: Tensor, drop_text: Tensor | None = None
    ) -> Tensor:
        """Logits ``[B, n, V]``; drop_text ``[B]`` hides the caption of a row."""
        return self.run(self.embed_text(text, drop_text), self.token_emb(ids), valid)


class ResidualTransformer(TokenTransformer):
    """Ids of layer j = 1..Q-1 from those of the layers below. Id V is pad, a class as well.

    With `share_weight`, a layer's output matrix is its own input table; layer 0 is only read and
    layer Q-1 only predicted.
    """

    def __init__(
        self, config: TransformerConfig, vocabulary: Vocabulary, text_width: int = 512
    ) -> None:
        super().__init__(config, vocabulary, text_width, vocabulary.width)
        self.pad_id = vocabulary.codes
        layers, table = vocabulary.layers, (vocabulary.codes + 1, vocabulary.width)
        if config.share_weight:
            self.embed_proj_shared_weight = _table(layers - 2, *table)
            self.token_embed_weight_ = _table(1, *table)
            self.output_proj_weight_ = _table(1, *table)
        else:
            self.token_embed_weight = _table(layers - 1, *table)
            self.output_proj_weight = _table(layers - 1, *table)
            self.output_proj_bias = nn.Parameter(torch.zeros(layers, table[0]))
        self.quant_emb = nn.Linear(layers, config.latent_dim)
        self.apply(_initialise)

    @property
    def input_tables(self) -> Tensor:
        """``[Q-1, V+1, C]``: entry j embeds the ids of layer j."""
        if not self.config.share_weight:
            return self.token_embed_weight
        return torch.cat([self.token_embed_weight_, self.embed_proj_shared_weight])

    @property
    def output_tables(self) -> Tensor:
        """``[Q-1, V+1, C]``: entry j - 1 predicts the ids of layer j."""
        if not self.config.share_weight:
            return self.output_proj_weight
        return torch.cat([self.embed_proj_shared_weight, self.output_proj_weight_])

    def history(self, ids: Tensor, layer: Tensor) -> Tensor:
        """Summed embeddings ``[B, n, C]`` of the layers below `layer` ``[B]`` of ids
        ``[B, n, q]``, q >= the highest of them."""
        tables = self.input_tables
        total = tables.new_zeros(*ids.shape[:2], tables.shape[-1])
        for j in range(min(ids.shape[-1], len(tables))):
            below = (j < layer).view(-1, 1, 1)
            total = total + F.embedding(ids[..., j], tables[j]).masked_fill(~below, 0.0)
        return total

    def forward(
        self,
        history: Tensor,
        layer: Tensor,
        text: Tensor,
        valid: Tensor,
        drop_text: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[B, n, V+1]`` of layer j ``[B]`` (1..Q-1) of each row."""
        one_hot = F.one_hot(layer, self.vocabulary.layers).to(self.quant_emb.weight.dtype)
        prefix = torch.cat(
            [self.embed_text(text, drop_text), self.quant_emb(one_hot).unsqueeze(1)], dim=1
        )
        logits = self.run(prefix, history, valid) @ self.output_tables[layer - 1].transpose(1, 2)
        if self.config.share_weight:
            return logits
        # upstream adds the logits to themselves before the bias, and its weights are made for it
        return 2 * logits + self.output_proj_bias[layer - 1].unsqueeze(1)


def guided_logits(model: TokenTransformer, *inputs: Tensor, scale: float) -> Tensor:
    """u + scale (c - u) of `model`'s logits, both passes in one doubled batch; 1 needs no u.

    inputs: the arguments of ``model.forward`` without drop_text.
    """
    if scale == 1:
        return model(*inputs)
    hidden = torch.ones(len(inputs[0]), dtype=torch.bool, device=inputs[0].device)
    doubled = model(*(torch.cat([x, x]) for x in inputs), torch.cat([~hidden, hidden]))
    conditional, unconditional = doubled.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def _table(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * INIT_STD)


def _initialise(module: nn.Module) -> None:
    """As upstream: attention's packed input projections keep PyTorch's own."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
