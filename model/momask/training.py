"""What the two transformers learn from: corrupted base ids, and residual layers in turn.

Source: Guo et al., "MoMask", CVPR 2024, sections 3.2 and 3.3, and its public implementation.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.momask.draws import Draws

RANDOM_SHARE = 0.10  # of the chosen tokens become a random id
MASKED_SHARE = 0.88  # of the others become the mask; the rest stays


@dataclass(frozen=True)
class CorruptionDraws:
    """time ``[B]`` and order ``[B, n]`` uniform; is_random, is_masked ``[B, n]`` coins; random_ids
    ``[B, n]``."""

    time: Tensor
    order: Tensor
    is_random: Tensor
    random_ids: Tensor
    is_masked: Tensor

    @staticmethod
    def draw(batch: int, tokens: int, codes: int, draws: Draws) -> "CorruptionDraws":
        shape = (batch, tokens)
        return CorruptionDraws(
            time=draws.uniform(batch),
            order=draws.uniform(*shape),
            is_random=draws.uniform(*shape) < RANDOM_SHARE,
            random_ids=(draws.uniform(*shape) * codes).long(),
            is_masked=draws.uniform(*shape) < MASKED_SHARE,
        )


@dataclass(frozen=True)
class CorruptedIds:
    """What the base transformer sees ``[B, n]``, and the tokens that count in the loss."""

    ids: Tensor
    chosen: Tensor


def corrupt(
    ids: Tensor, valid: Tensor, mask_id: int, pad_id: int, drawn: CorruptionDraws
) -> CorruptedIds:
    """Choose a share cos(pi u / 2) of all n positions of a row, of which those inside the length
    count, and hide most of them."""
    count = (torch.cos(drawn.time * math.pi * 0.5) * ids.shape[1]).round().clamp_min(1)
    chosen = (drawn.order.argsort(dim=1) < count.unsqueeze(1)) & valid
    is_random = chosen & drawn.is_random
    is_masked = chosen & ~is_random & drawn.is_masked
    seen = torch.where(is_random, drawn.random_ids, ids).masked_fill(is_masked, mask_id)
    return CorruptedIds(seen.masked_fill(~valid, pad_id), chosen)


@dataclass(frozen=True)
class TokenLoss:
    """Cross entropy and share of right guesses, means over the tokens that count."""

    loss: Tensor
    accuracy: Tensor


def token_loss(logits: Tensor, ids: Tensor, counted: Tensor) -> TokenLoss:
    """Logits ``[B, n, classes]`` against ids ``[B, n]`` where `counted`; one mean for the batch,
    0 where nothing counts."""
    errors = F.cross_entropy(logits.flatten(0, 1), ids.clamp_min(0).flatten(), reduction="none")
    total = counted.sum().clamp_min(1)
    right = (logits.argmax(dim=-1) == ids) & counted
    return TokenLoss(errors.view_as(ids)[counted].sum() / total, right.sum() / total)


def active_layer(uniform: Tensor, layers: int) -> Tensor:
    """The layer 1..Q-1 ``[B]`` that each row of a residual batch predicts; low ones more often."""
    return 1 + ((1 - torch.cos(uniform * math.pi * 0.5)) * (layers - 2)).round().long()
