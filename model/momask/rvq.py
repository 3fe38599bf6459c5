"""Motions as residual tokens: MoMask's RVQ-VAE, with upstream's parameter names.

Source: Guo et al., "MoMask", CVPR 2024, section 3.1, and its public implementation. A token covers
2^down_t frames; each of its Q ids names the code of what the layers before left over.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.momask.draws import Draws, gumbel
from utils.options import option

CHOICE_TEMPERATURE = 0.5  # of the noisy code choice in training


@dataclass
class RVQConfig:
    """Sizes, named as in ``opt.txt``; the defaults are those of the published models."""

    nb_code: int = option(512, "codes per layer", minimum=2, maximum=65536)
    code_dim: int = option(512, "width of a code", minimum=1, maximum=8192)
    num_quantizers: int = option(6, "layers of residual codes", minimum=1, maximum=64)
    down_t: int = option(
        2, "halvings of the frame rate; a token covers 2^down_t frames", minimum=1, maximum=6
    )
    width: int = option(512, "channels of the convolutions", minimum=1, maximum=8192)
    depth: int = option(3, "residual blocks after each halving", minimum=1, maximum=8)
    dilation_growth_rate: int = option(
        3, "factor of the dilation from block to block", minimum=1, maximum=8
    )
    dropout: float = option(0.2, "dropout of the residual blocks", minimum=0, maximum=0.99)
    quantize_dropout_prob: float = option(
        0.2, "share of batches that use only some of the layers", minimum=0, maximum=1
    )
    mu: float = option(0.99, "decay of the codebooks' moving averages", minimum=0, maximum=1)

    @property
    def frames_per_token(self) -> int:
        return 2**self.down_t

    @property
    def weights(self) -> int:
        """Of codebooks and residual blocks, encoder and decoder."""
        codes = self.nb_code * self.code_dim * self.num_quantizers
        return codes + 2 * self.down_t * self.depth * 4 * self.width**2


class ResidualBlock(nn.Module):
    """x + dropout(pointwise(relu(dilated(relu(x))))), convolutions of kernel 1 and 3."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.conv2(F.relu(self.conv1(F.relu(x)))))


class ResidualBlocks(nn.Module):
    """Blocks with falling dilation (9, 3, 1 in the published models)."""

    def __init__(self, config: RVQConfig) -> None:
        super().__init__()
        dilations = [config.dilation_growth_rate**i for i in reversed(range(config.depth))]
        blocks = [ResidualBlock(config.width, dilation, config.dropout) for dilation in dilations]
        self.model = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _conv3(inputs: int, outputs: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, 3, padding=1)


class Encoder(nn.Module):
    """Features ``[B, F, T]`` to ``[B, C, n]``, n = T / frames_per_token."""

    def __init__(self, config: RVQConfig, num_features: int) -> None:
        super().__init__()
        width = config.width
        halvings = [
            nn.Sequential(nn.Conv1d(width, width, 4, stride=2, padding=1), ResidualBlocks(config))
            for _ in range(config.down_t)
        ]
        self.model = nn.Sequential(
            _conv3(num_features, width), nn.ReLU(), *halvings, _conv3(width, config.code_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Decoder(nn.Module):
    """Codes ``[B, C, n]`` to features ``[B, F, T]``."""

    def __init__(self, config: RVQConfig, num_features: int) -> None:
        super().__init__()
        width = config.width
        doublings = [
            nn.Sequential(ResidualBlocks(config), nn.Upsample(scale_factor=2), _conv3(width, width))
            for _ in range(config.down_t)
        ]
        self.model = nn.Sequential(
            _conv3(config.code_dim, width),
            nn.ReLU(),
            *doublings,
            _conv3(width, width),
            nn.ReLU(),
            _conv3(width, num_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Codebook(nn.Module):
    """One layer's codes ``[V, C]``: moving averages of the rows that chose them.

    The state dict holds the codes alone, as upstream's does; `averages` and `load_averages` carry
    the rest over a resume. Codes without averages are a first average that counts once.
    """

    codebook: Tensor
    code_sum: Tensor
    code_count: Tensor

    def __init__(self, config: RVQConfig) -> None:
        super().__init__()
        shape = (config.nb_code, config.code_dim)
        self.mu = config.mu
        self.register_buffer("codebook", torch.zeros(shape))
        self.register_buffer("code_sum", torch.zeros(shape), persistent=False)
        self.register_buffer("code_count", torch.zeros(shape[0]), persistent=False)

    def nearest(self, rows: Tensor, draws: Draws | None = None) -> Tensor:
        """Ids ``[R]`` of the codes nearest to rows ``[R, C]``; with `draws`, nearest but for
        Gumbel noise."""
        squares = rows.square().sum(1, keepdim=True) + self.codebook.square().sum(1)
        closeness = 2 * rows @ self.codebook.T - squares
        if draws is not None:
            noise = gumbel(draws.uniform(*closeness.shape))
            closeness = closeness / CHOICE_TEMPERATURE + noise
        return closeness.argmax(dim=1)

    def codes(self, ids: Tensor) -> Tensor:
        """``[...]`` -> ``[..., C]``; zeros for id -1."""
        codes = F.embedding(ids.clamp_min(0), self.codebook)
        return codes.masked_fill((ids < 0).unsqueeze(-1), 0.0)

    @torch.no_grad()
    def start(self, rows: Tensor, draws: Draws) -> None:
        """Before the first update: codes that are all zero become the first rows ``[R, C]``."""
        if self.code_count.any():
            return
        if not self.codebook.any():
            self.codebook.copy_(self._candidates(rows, draws))
        self.code_sum.copy_(self.codebook)
        self.code_count.fill_(1.0)

    @torch.no_grad()
    def update(self, rows: Tensor, ids: Tensor, draws: Draws) -> None:
        """Move the averages by rows ``[R, C]`` that chose ids ``[R]``.

        A code whose averaged count falls below 1 becomes the row of its number.
        """
        chosen = F.one_hot(ids, len(self.codebook)).to(rows.dtype)
        self.code_sum.lerp_(chosen.T @ rows, 1 - self.mu)
        self.code_count.lerp_(chosen.sum(0), 1 - self.mu)
        used = (self.code_count >= 1.0).unsqueeze(1)
        means = self.code_sum / self.code_count.unsqueeze(1)
        self.codebook.copy_(torch.where(used, means, self._candidates(rows, draws)))

    def _candidates(self, rows: Tensor, draws: Draws) -> Tensor:
        """The first V rows ``[V, C]``; fewer rows are repeated with a little noise."""
        count, width = self.codebook.shape
        if len(rows) < count:
            rows = rows.repeat(-(-count // len(rows)), 1)
            rows = rows + draws.normal(*rows.shape) * 0.01 / width**0.5
        return rows[:count]


@dataclass(frozen=True)
class Quantised:
    """quantised ``[B, C, n]``, the sum of the used layers' codes, with the encoder's gradient;
    ids ``[B, n, Q]``, -1 in unused layers; the commitment loss and the perplexity of the choice,
    both scalars and means over the used layers."""

    quantised: Tensor
    ids: Tensor
    commitment: Tensor
    perplexity: Tensor


class ResidualQuantizer(nn.Module):
    """Q codebooks, each for what the codes before it left over."""

    def __init__(self, config: RVQConfig) -> None:
        super().__init__()
        self.dropout = config.quantize_dropout_prob
        self.layers = nn.ModuleList(Codebook(config) for _ in range(config.num_quantizers))

    def forward(
        self, x: Tensor, draws: Draws | None = None, used_layers: int | None = None
    ) -> Quantised:
        """Quantise ``[B, C, n]`` by the first `used_layers` (None: all).

        `draws` make it a pass of training: the choice is noisy, now and then only some layers are
        used, and the codebooks move. Each used layer passes its gradient to x in full, as
        upstream's do, so that x gets the decoder's gradient times their number.
        """
        with torch.autocast(x.device.type, enabled=False):  # distances need all their digits
            rows = x.float().transpose(1, 2).flatten(0, 1)
            used = used_layers or self._used_layers(draws)
            total = torch.zeros_like(rows)
            ids, commitments, perplexities = [], [], []
            for layer in self.layers[:used]:
                chosen, codes = self._choose(layer, rows, draws)
                commitments.append(F.mse_loss(rows, codes))
                perplexities.append(_perplexity(chosen, len(layer.codebook)))
                total = total + rows + (codes - rows).detach()
                rows = rows - codes
                ids.append(chosen)
        unused = torch.full_like(ids[0], -1)
        ids += [unused] * (len(self.layers) - used)
        batch, _, tokens = x.shape
        return Quantised(
            total.unflatten(0, (batch, tokens)).transpose(1, 2),
            torch.stack(ids, dim=-1).unflatten(0, (batch, tokens)),
            torch.stack(commitments).mean(),
            torch.stack(perplexities).mean(),
        )

    def _choose(self, layer: Codebook, rows: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """Ids ``[R]`` and codes ``[R, C]``, without gradient."""
        rows = rows.detach()
        if draws is None:
            ids = layer.nearest(rows)
            return ids, layer.codes(ids)
        layer.start(rows, draws)
        ids = layer.nearest(rows, draws)
        codes = layer.codes(ids)
        layer.update(rows, ids, draws)
        return ids, codes

    def _used_layers(self, draws: Draws | None) -> int:
        """All; in training with probability `dropout` a uniform number of them."""
        count = len(self.layers)
        if draws is None or self.dropout == 0:
            return count
        coin, share = draws.uniform(2).tolist()
        return 1 + int(share * count) if coin < self.dropout else count

    def codes(self, ids: Tensor) -> Tensor:
        """Ids ``[B, n, q]``, q <= Q, to the codes ``[q, B, n, C]``; zeros for id -1."""
        layers = zip(self.layers, ids.unbind(-1), strict=False)
        return torch.stack([layer.codes(chosen) for layer, chosen in layers])

    def averages(self) -> dict[str, Tensor]:
        """What the codebooks must remember besides their codes when a training goes on."""
        names = ("code_sum", "code_count")
        return {
            f"layers.{i}.{name}": getattr(layer, name).detach().cpu().clone()
            for i, layer in enumerate(self.layers)
            for name in names
        }

    def load_averages(self, averages: Mapping[str, Tensor]) -> None:
        """Restore `averages`. Raises KeyError for a layer that they lack."""
        for i, layer in enumerate(self.layers):
            layer.code_sum.copy_(averages[f"layers.{i}.code_sum"])
            layer.code_count.copy_(averages[f"layers.{i}.code_count"])


def _perplexity(ids: Tensor, codes: int) -> Tensor:
    """exp of the entropy of the choices: between 1 and the number of codes."""
    shares = torch.bincount(ids, minlength=codes) / len(ids)
    return torch.exp(-(shares * torch.log(shares + 1e-7)).sum())


@dataclass(frozen=True)
class RVQOutput:
    """motion ``[B, T, F]`` as decoded, and how it was quantised."""

    motion: Tensor
    quantised: Quantised


class RVQVAE(nn.Module):
    """Encoder, quantiser and decoder of normalised motions ``[B, T, F]``.

    A token sees frames far beyond its own, zeros of the padding included: encode motions padded to
    the frames that the transformers were trained with.
    """

    def __init__(self, config: RVQConfig, num_features: int) -> None:
        super().__init__()
        self.config, self.num_features = config, num_features
        self.encoder = Encoder(config, num_features)
        self.decoder = Decoder(config, num_features)
        self.quantizer = ResidualQuantizer(config)

    def encode_features(self, motion: Tensor) -> Tensor:
        """``[B, T, F]`` -> ``[B, C, n]`` before quantisation. Raises ValueError unless T is a
        multiple of the frames per token."""
        unit = self.config.frames_per_token
        if motion.shape[1] % unit:
            raise ValueError(f"{motion.shape[1]} frames are no multiple of {unit}; pad them")
        return self.encoder(motion.transpose(1, 2))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Summed codes ``[B, C, n]`` -> motion ``[B, T, F]``."""
        return self.decoder(codes).transpose(1, 2)

    @torch.no_grad()
    def encode(self, motion: Tensor) -> Tensor:
        """Ids ``[B, n, Q]`` of the nearest codes."""
        return self.quantizer(self.encode_features(motion)).ids

    def decode(self, ids: Tensor) -> Tensor:
        """Motion ``[B, T, F]`` of ids ``[B, n, q]``; id -1 and missing layers add nothing."""
        return self.decode_codes(self.quantizer.codes(ids).sum(0).transpose(1, 2))

    def forward(
        self, motion: Tensor, draws: Draws | None = None, used_layers: int | None = None
    ) -> RVQOutput:
        """Reconstruct ``[B, T, F]``; see `ResidualQuantizer.forward`."""
        quantised = self.quantizer(self.encode_features(motion), draws, used_layers)
        return RVQOutput(self.decode_codes(quantised.quantised), quantised)


@dataclass(frozen=True)
class RVQLosses:
    """Un-weighted terms and the weighted total, all scalars."""

    recons: Tensor
    positions: Tensor
    commitment: Tensor
    total: Tensor


def rvq_losses(
    output: RVQOutput,
    target: Tensor,
    positions: slice,
    positions_weight: float = 0.5,
    commitment_weight: float = 0.02,
) -> RVQLosses:
    """SmoothL1 over all features of ``[B, T, F]``, over the local joint positions among them
    (upstream calls that its velocity loss), and the commitment loss."""
    recons = F.smooth_l1_loss(output.motion, target)
    local = F.smooth_l1_loss(output.motion[..., positions], target[..., positions])
    commitment = output.quantised.commitment
    total = recons + positions_weight * local + commitment_weight * commitment
    return RVQLosses(recons, local, commitment, total)
