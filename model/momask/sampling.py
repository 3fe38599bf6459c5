"""Ids from text: the base layer by masked generation, the other layers one after the other.

Source: Guo et al., "MoMask", CVPR 2024, section 3.4. Text features are ``[B, E]``, `valid`
``[B, n]`` is True inside the length, ids beyond it are -1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.memory import Call, rows_of, within_memory
from model.momask.draws import Draws, draw_categorical, draw_gumbel, keep_top
from model.momask.transformers import BaseTransformer, ResidualTransformer, guided_logits

SETTLED = 1e5  # score of a position that is never masked again


@dataclass(frozen=True)
class TokenSampling:
    """The published settings; `guidance` is 4 for HumanML3D and 2 for KIT.

    Logits below the top share 1 - `top_k_threshold` are never drawn. `gumbel` draws base ids as the
    residual ids always are, by Gumbel noise, else from the softmax.
    """

    iterations: int = 10
    guidance: float = 4.0
    temperature: float = 1.0
    top_k_threshold: float = 0.9
    gumbel: bool = False
    residual_guidance: float = 5.0


@torch.no_grad()
def generate_base(
    model: BaseTransformer,
    text: Tensor,
    valid: Tensor,
    options: TokenSampling,
    draws: Draws,
    given: Tensor | None = None,
) -> Tensor:
    """Base ids ``[B, n]``; with `given` ids ``[B, n]`` only those that are negative are drawn.

    Each iteration masks the least certain of the drawn ids, fewer from time to time, and draws
    them anew.
    """
    open_positions = valid if given is None else valid & (given < 0)
    drawn = torch.full_like(valid, model.mask_id, dtype=torch.long)
    ids = drawn if given is None else torch.where(open_positions, drawn, given)
    ids = torch.where(valid, ids, model.pad_id)
    scores = torch.where(open_positions, 0.0, SETTLED)

    def guided(rows: Tensor) -> Call:
        few, scale = (text[rows], valid[rows]), options.guidance
        return lambda ids: guided_logits(model, ids, *few, scale=scale).float()

    network = within_memory(guided, rows_of(valid))
    for count in masked_counts(open_positions.sum(1), options.iterations):
        masked = lowest(scores, count) & open_positions
        ids = torch.where(masked, model.mask_id, ids)
        logits = network(ids)
        kept = keep_top(logits, options.top_k_threshold)
        draw = draw_gumbel if options.gumbel else draw_categorical
        found = draw(kept, options.temperature, draws)
        ids = torch.where(masked, found, ids)
        certainty = logits.softmax(dim=-1).gather(-1, found.unsqueeze(-1)).squeeze(-1)
        scores = torch.where(masked, certainty, SETTLED)
    return ids.masked_fill(~valid, -1)


def masked_counts(tokens: Tensor, iterations: int) -> list[Tensor]:
    """How many of `tokens` ``[B]`` each iteration masks: all at first, one in the last.

    On the CPU in float32, as the counts round a number that is half an integer in exact terms.
    """
    times = torch.linspace(0, 1, iterations)
    shares = torch.cos(times * math.pi * 0.5)
    counts = (shares[:, None] * tokens.cpu()).round().clamp_min(1)
    return list(counts.to(tokens.device))


def lowest(scores: Tensor, count: Tensor) -> Tensor:
    """``[B, n]``, True at the `count` ``[B]`` lowest scores of each row."""
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < count.unsqueeze(1)


@torch.no_grad()
def generate_residual(
    model: ResidualTransformer,
    base_ids: Tensor,
    text: Tensor,
    valid: Tensor,
    options: TokenSampling,
    draws: Draws,
) -> Tensor:
    """Ids ``[B, n, Q]`` of all layers. The pad class is drawn now and then inside a motion too;
    there the layer adds nothing, and its id is -1."""
    ids = torch.where(valid, base_ids, model.pad_id).unsqueeze(-1)

    def guided(rows: Tensor) -> Call:
        few, scale = (text[rows], valid[rows]), options.residual_guidance
        return lambda *inputs: guided_logits(model, *inputs, *few, scale=scale).float()

    network = within_memory(guided, rows_of(valid))
    for j in range(1, model.vocabulary.layers):
        layer = torch.full((len(ids),), j, device=ids.device)
        logits = network(model.history(ids, layer), layer)
        found = draw_gumbel(keep_top(logits, options.top_k_threshold), 1.0, draws)
        ids = torch.cat([ids, torch.where(valid, found, model.pad_id).unsqueeze(-1)], dim=-1)
    return ids.masked_fill(ids == model.pad_id, -1)
