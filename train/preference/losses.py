"""SoPo's loss as pure functions of denoising errors, rewards and weights (no model, no I/O).

Every function works on per-sample vectors ``[B]``. Denoising errors are the masked mean squared
errors of the predicted x0 (mean over valid frames and features). With

    L(theta, ref, x_t) = L(theta, x_t) - L(ref, x_t)                  (policy minus reference)

Eq. 17 of the paper reads, for the preferred motion w and the unpreferred motion l of one pair,

    z    = -T omega_t ( beta_w L(theta, ref, w_t) - 1[r_l < tau] beta L(theta, ref, l_t) )
    loss = mean( -log sigmoid(z) )

With beta in place of beta_w and an open gate this is the Diffusion-DPO loss (Wallace et al. 2024),
so every method of `train.preference.methods` goes through `sopo_loss`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class DenoisingErrors:
    """Errors ``[B]`` of one set of motions under policy and reference, at shared t and noise."""

    policy: Tensor
    reference: Tensor

    @property
    def difference(self) -> Tensor:
        """L(theta, ref, x_t) of Eq. 17; negative where the policy fits better."""
        return self.policy - self.reference


@dataclass(frozen=True)
class PreferenceLoss:
    """All fields ``[B]``; `loss` carries the gradient, the rest is detached, for logging.

    `chosen` and `rejected` are the implicit rewards -T omega_t beta_x L(theta, ref, x_t);
    `rejected` is zero where the unpreferred term is off. `margin` is z.
    """

    loss: Tensor
    chosen: Tensor
    rejected: Tensor
    margin: Tensor


def worst_candidate(rewards: Tensor) -> Tensor:
    """Index ``[B]`` of the unpreferred motion: argmin over the K candidates of ``[B, K]``."""
    return rewards.argmin(dim=1)


def best_candidate(rewards: Tensor) -> Tensor:
    """Index ``[B]`` of the preferred motion of online pairs: argmax over ``[B, K]``."""
    return rewards.argmax(dim=1)


def preferred_similarity(similarities: Tensor) -> Tensor:
    """S(x_w) = min_k sim(x_w, x^k): ``[B, K]`` -> ``[B]``."""
    return similarities.amin(dim=1)


def preferred_weight(similarity: Tensor, beta: float, c: float) -> Tensor:
    """beta_w(x_w) = beta (C - S(x_w)) ``[B]``: a winner far from the candidates weighs more."""
    return beta * (c - similarity)


def sopo_loss(
    winner: DenoisingErrors,
    loser: DenoisingErrors,
    winner_weight: Tensor,
    loser_weight: float,
    use_loser: Tensor,
    scale: Tensor | float,
) -> PreferenceLoss:
    """Eq. 17, per sample.

    `winner_weight` is beta_w or beta ``[B]``, `loser_weight` beta, `use_loser` the gate ``[B]``
    (bool), `scale` T omega_t (a number or ``[B]``). Where the gate is False the loser's gradient
    is exactly zero.
    """
    chosen = -scale * winner_weight * winner.difference
    rejected = -scale * loser_weight * loser.difference
    rejected = torch.where(use_loser, rejected, torch.zeros_like(rejected))
    margin = chosen - rejected
    # -log sigmoid(z) = softplus(-z), finite for every z
    return PreferenceLoss(F.softplus(-margin), chosen.detach(), rejected.detach(), margin.detach())
