"""How likely the base transformer finds a motion's tokens, from one shared mask.

MoMask with SoPo is not public; this is the project's own definition. For a motion with base ids a,
N of them valid, and m of those hidden,

    l(a; M) = -(1/m) sum over i in M of log p(a_i | a without M, caption)

With m uniform in 1..N, N E[l] is the any-order autoregressive negative log-likelihood, an upper
bound of -log p(a | caption).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.momask.sampling import lowest
from model.momask.transformers import BaseTransformer


def masked_count(uniform: Tensor, tokens: Tensor) -> Tensor:
    """m ``[B]`` = max(1, round(N cos(pi u / 2))) of u ``[B]`` and N ``[B]``."""
    return (tokens * torch.cos(uniform * math.pi * 0.5)).round().clamp_min(1)


def shared_mask(scores: Tensor, count: Tensor, valid: Tensor) -> Tensor:
    """M ``[B, n]``: the `count` ``[B]`` lowest of the scores ``[B, n]`` inside the length."""
    return lowest(scores.masked_fill(~valid, float("inf")), count) & valid


def hide(ids: Tensor, mask: Tensor, valid: Tensor, model: BaseTransformer) -> Tensor:
    """What the network sees ``[B, n]``: mask at M, pad beyond the length, true ids elsewhere."""
    return ids.masked_fill(mask, model.mask_id).masked_fill(~valid, model.pad_id)


def masked_error(
    model: BaseTransformer, ids: Tensor, mask: Tensor, text: Tensor, valid: Tensor
) -> Tensor:
    """l(a; M) ``[B]``: unguided, with the caption, at temperature 1, of all V codes."""
    logits = model(hide(ids, mask, valid, model), text, valid).float()
    targets = ids.masked_fill(~mask, 0).unsqueeze(-1)
    surprise = -F.log_softmax(logits, dim=-1).gather(-1, targets).squeeze(-1)
    return (surprise * mask).sum(1) / mask.sum(1)


def count_probability(count: Tensor, tokens: Tensor) -> Tensor:
    """P(m) ``[B]`` of `masked_count` for u uniform in (0, 1)."""
    count, tokens = count.double(), tokens.double()
    upper = torch.acos(((count - 0.5) / tokens).clamp(0, 1))
    lower = torch.acos(((count + 0.5) / tokens).clamp(0, 1))
    upper = torch.where(count == 1, math.pi / 2, upper)
    lower = torch.where(count == tokens, 0.0, lower)
    return (upper - lower) * 2 / math.pi


def exact_weight(count: Tensor, tokens: Tensor) -> Tensor:
    """w(m) ``[B]`` = 1 / (N P(m)), which makes N w(m) l(a; M) an exact estimate of the bound."""
    return (1 / (tokens * count_probability(count, tokens))).float()
