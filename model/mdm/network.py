"""MDM, the motion diffusion transformer, with upstream's parameter names.

Motions are ``[B, T, D]``; the network predicts x0. Source: Tevet et al., "Human Motion Diffusion
Model", ICLR 2023, and its public implementation (2022 to 2025 variants).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion.schedule import ScheduleOptions
from model.layers import TransformerOptions, attention_bias, decoder_layer, encoder_layer
from model.text.encoders import Condition
from utils.options import option, with_default
from utils.positions import sinusoidal_table

TEXT_WIDTHS = {
    "clip": 512,
    "bert": 768,
    "builtin": 256,
    "wordllama": 256,
    "clip_large": 768,
    "sentence_t5": 768,
}


@dataclass
class MDMConfig(ScheduleOptions, TransformerOptions):
    """Options that make the network and its diffusion; stored in ``args.json``."""

    arch: str = option("trans_enc", "transformer layout", choices=("trans_enc", "trans_dec", "gru"))
    cond_mask_prob: float = option(
        0.1, "share of captions dropped in training", minimum=0, maximum=1
    )
    emb_trans_dec: bool = option(False, "decoder: add the condition as a token of the sequence")
    legacy_emb_token: bool = option(
        False, "decoder: that token holds time and text (2022 checkpoints), not time alone"
    )
    mask_frames: bool = option(False, "hide padded frames from attention")
    unconstrained: bool = option(False, "no text condition at all")
    pos_embed_max_len: int = option(
        5000, "rows of the positional table", minimum=200, maximum=20_000
    )
    noise_schedule: str = with_default("cosine", choices=("cosine", "linear"))
    sigma_small: bool = option(True, "posterior variance instead of beta")


class PositionalEncoding(nn.Module):
    """Interleaved sinusoids ``[max_len, 1, d]``, kept in the checkpoint as upstream does."""

    pe: Tensor

    def __init__(self, width: int, dropout: float, max_len: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pe", sinusoidal_table(max_len, width).unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        """Add positions to ``[B, L, d]``."""
        return self.dropout(x + self.pe[: x.shape[1], 0])


class InputProcess(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.poseEmbedding = nn.Linear(features, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.poseEmbedding(x)


class OutputProcess(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.poseFinal = nn.Linear(width, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.poseFinal(x)


class TimestepEmbedder(nn.Module):
    """MLP of the positional row at the (original) step index."""

    def __init__(self, width: int, positions: PositionalEncoding) -> None:
        super().__init__()
        self.sequence_pos_encoder = positions
        self.time_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timesteps: Tensor) -> Tensor:
        """``[B]`` -> ``[B, d]``."""
        return self.time_embed(self.sequence_pos_encoder.pe[timesteps, 0])


class MDM(nn.Module):
    """x0 from a noised motion, a step and a condition."""

    def __init__(self, config: MDMConfig, num_features: int, text_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.num_features = num_features
        width = config.latent_dim
        # the GRU reads the condition as further channels of every frame
        channels = num_features + (width if config.arch == "gru" else 0)
        self.input_process = InputProcess(channels, width)
        self.sequence_pos_encoder = PositionalEncoding(
            width, config.dropout, config.pos_embed_max_len
        )
        layer = {
            "d_model": width,
            "nhead": config.num_heads,
            "dim_feedforward": config.ff_size,
            "dropout": config.dropout,
            "activation": "gelu",
            "batch_first": True,
        }
        if config.arch == "trans_enc":
            self.seqTransEncoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(**layer), config.layers, enable_nested_tensor=False
            )
        elif config.arch == "trans_dec":
            self.seqTransDecoder = nn.TransformerDecoder(
                nn.TransformerDecoderLayer(**layer), config.layers
            )
        else:
            self.gru = nn.GRU(width, width, config.layers, batch_first=True)
        self.embed_timestep = TimestepEmbedder(width, self.sequence_pos_encoder)
        if not config.unconstrained:
            text_width = text_width or TEXT_WIDTHS[config.text_encoder_type]
            self.embed_text = nn.Linear(text_width, width)
        self.output_process = OutputProcess(num_features, width)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        condition: Condition | None = None,
        mask: Tensor | None = None,
        drop_text: Tensor | None = None,
    ) -> Tensor:
        """x0 ``[B, T, D]`` of x ``[B, T, D]`` at original step indices ``[B]``.

        mask ``[B, T]`` (True = valid) is used only by models with `mask_frames`. drop_text ``[B]``
        (True = unconditional) zeroes the encoder's output before the linear layer, so that the
        null condition is that layer's bias; all True needs no `condition`.
        """
        time = self.embed_timestep(timesteps).unsqueeze(1)
        memory, memory_mask = self._condition(time, condition, drop_text)
        if self.config.arch == "gru":
            return self._run_gru(x, memory)
        frames = self.input_process(x)
        hidden = ~mask if self.config.mask_frames and mask is not None else None
        if self.config.arch == "trans_enc":
            return self._run_encoder(frames, memory, hidden)
        return self._run_decoder(frames, time, memory, memory_mask, hidden)

    def _condition(
        self, time: Tensor, condition: Condition | None, drop_text: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Time plus text tokens ``[B, L, d]`` and their padding mask (True = padding)."""
        if self.config.unconstrained:
            return time, None
        if condition is None:
            bias = self.embed_text.bias.expand(len(time), 1, -1)
            return bias + time, None
        tokens = condition.tokens
        if drop_text is not None:
            tokens = tokens.masked_fill(drop_text.view(-1, 1, 1), 0.0)
        padding = None if tokens.shape[1] == 1 else ~condition.mask
        return self.embed_text(tokens) + time, padding

    def _run_encoder(self, frames: Tensor, memory: Tensor, hidden: Tensor | None) -> Tensor:
        x = self.sequence_pos_encoder(torch.cat([memory, frames], dim=1))
        bias = attention_bias(_with_token(hidden), x.dtype)
        for layer in self.seqTransEncoder.layers:
            x = encoder_layer(layer, x, bias)
        return self.output_process(x[:, 1:])

    def _run_decoder(
        self,
        frames: Tensor,
        time: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        hidden: Tensor | None,
    ) -> Tensor:
        if self.config.emb_trans_dec:
            token = memory if self.config.legacy_emb_token else time
            frames, hidden = torch.cat([token, frames], dim=1), _with_token(hidden)
        x = self.sequence_pos_encoder(frames)
        bias, memory_bias = attention_bias(hidden, x.dtype), attention_bias(memory_mask, x.dtype)
        for layer in self.seqTransDecoder.layers:
            x = decoder_layer(layer, x, memory, bias, memory_bias)
        return self.output_process(x[:, 1:] if self.config.emb_trans_dec else x)

    def _run_gru(self, x: Tensor, memory: Tensor) -> Tensor:
        """Upstream's GRU runs its recurrence over the batch axis; kept for its checkpoints."""
        channels = torch.cat([x, memory.expand(-1, x.shape[1], -1)], dim=-1)
        frames = self.sequence_pos_encoder(self.input_process(channels))
        hidden, _ = self.gru(frames.transpose(0, 1))
        return self.output_process(hidden.transpose(0, 1))


def _with_token(hidden: Tensor | None) -> Tensor | None:
    """Padding mask ``[B, T]`` with a visible token in front."""
    return None if hidden is None else nn.functional.pad(hidden, (1, 0), value=False)
