"""Algorithm 1 of SoPo from top to bottom, for any generator, reward and method.

No loop, no dataset and no family of generators is known here:

    t, x_w  <- noise levels, and the dataset's raw samples in the generator's space
    x_l     <- the worst by reward of K samples that the policy has just generated (pairs.py)
    gate    <- is its reward below tau? (gate.py)
    beta_w  <- beta (C - S(x_w)), more for winners unlike the policy's own samples (losses.py)
    L       <- errors of x_w and x_l under policy and reference, at one noise and one t
    loss    <- -log sigmoid(z), Eq. 17 (losses.py)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.seam import Generator, Samples
from rewards.seam import Reward
from train.preference.fixed_pairs import FixedPairs, Store
from train.preference.gate import RewardThreshold
from train.preference.losses import DenoisingErrors, PreferenceLoss, preferred_weight, sopo_loss
from train.preference.methods import METHODS, Pairing
from train.preference.options import PreferenceOptions
from train.preference.pairs import (
    CandidateSampler,
    Key,
    OnlinePairs,
    PairSource,
    PreferenceBatch,
    captions_of,
)
from train.preference.safeguards import check_omega, noisy_enough, omega_t


@dataclass(frozen=True)
class Outcome:
    """One step: loss ``[B]`` with gradient, margin z ``[B]``, levels t ``[B]``, and figures."""

    loss: Tensor
    margin: Tensor
    t: Tensor
    metrics: dict[str, Tensor | float]


class PreferenceAlgorithm:
    """Policy, frozen reference, and the sources of the method's pairs; none = plain denoising.

    `store` holds the fixed pairs, for the methods that read them.
    """

    def __init__(
        self,
        options: PreferenceOptions,
        policy: Generator,
        reward: Reward,
        store: Store | None = None,
    ) -> None:
        self.options, self.policy, self.reward = options, policy, reward
        self.reference = policy.frozen()
        scale = options.margin_scale
        self.scale = float(policy.levels if scale is None else scale)
        tau = None if options.tau_quantile is not None else options.tau
        self.threshold = RewardThreshold(tau, options.tau_quantile, anchored=options.tau_anchored)
        check_omega(options.omega, policy)
        count = options.num_candidates or policy.usual_candidates
        self.candidates = CandidateSampler(policy, reward, count, options.candidate_start)
        self.sources = [self._source(pairing, store) for pairing in METHODS[options.method]]

    def _source(self, pairing: Pairing, store: Store | None) -> PairSource:
        if pairing.online:
            space = self.options.similarity_space
            return OnlinePairs(self.candidates, self.threshold, pairing, space)
        if store is None:
            raise ValueError(f"method {self.options.method} needs a store of fixed pairs")
        return FixedPairs(self.policy, self.reward, store, pairing)

    def step(self, raw: Samples, keys: Sequence[Key], rng: torch.Generator) -> Outcome:
        """Loss of one batch of the dataset."""
        condition = self.policy.encode_text(captions_of(keys))
        t = torch.randint(self.policy.levels, (len(raw),), generator=rng, device=rng.device)
        winners = self.policy.encode(raw, rng)
        drawn = [source(winners, keys, condition, rng) for source in self.sources]
        noise = self.policy.noise(winners, rng)
        if not drawn:
            error = self.policy.error(winners, t, noise, condition)
            return Outcome(error, torch.zeros_like(error.detach()), t, {})
        loss = margin = torch.zeros(len(raw), device=t.device)
        metrics: dict[str, Tensor | float] = {}
        for source, pairs in zip(self.sources, drawn, strict=True):
            result, figures = self.pair_loss(pairs, t, noise)
            loss, margin = loss + result.loss, margin + result.margin
            prefix = f"{source.pairing.name}/" if len(drawn) > 1 else ""
            metrics |= {prefix + name: value for name, value in figures.items()}
        return Outcome(loss, margin, t, metrics)

    def pair_loss(
        self, pairs: PreferenceBatch, t: Tensor, noise: Tensor
    ) -> tuple[PreferenceLoss, dict[str, Tensor | float]]:
        """Loss of one kind of pair, and the figures for the log."""
        options, beta = self.options, self.options.beta
        if pairs.similarity is None:
            weight = torch.full_like(pairs.reward_unpreferred, beta)
        else:
            weight = preferred_weight(pairs.similarity, beta, options.preferred_weight_c)
        winner, loser = self.errors(pairs, t, noise)
        scale = self.scale * omega_t(options.omega, t, self.policy, winner.reference)
        noisy = noisy_enough(t, self.policy.levels, options.loser_min_t)
        gate, loser_beta = pairs.gate.use_unpreferred & noisy, beta * options.loser_weight
        result = sopo_loss(winner, loser, weight, loser_beta, gate, scale)
        return result, pair_metrics(pairs, winner, loser, result, weight)

    def errors(
        self, pairs: PreferenceBatch, t: Tensor, noise: Tensor
    ) -> tuple[DenoisingErrors, DenoisingErrors]:
        """Errors of winner and loser: one t and one noise, one doubled batch per network."""
        samples = Samples.cat([pairs.preferred, pairs.unpreferred])
        inputs = (samples, t.repeat(2), torch.cat([noise, noise]), pairs.condition.repeat(2))
        policy = self.policy.error(*inputs)
        with torch.no_grad():
            reference = self.reference.error(*inputs)
        halves = zip(policy.chunk(2), reference.chunk(2), strict=True)
        winner, loser = (DenoisingErrors(p, r) for p, r in halves)
        return winner, loser


def pair_metrics(
    pairs: PreferenceBatch,
    winner: DenoisingErrors,
    loser: DenoisingErrors,
    result: PreferenceLoss,
    weight: Tensor,
) -> dict[str, Tensor | float]:
    """The figures of one step, under the names that preference training commonly uses."""
    tau = {} if pairs.gate.tau is None else {"gate/tau": pairs.gate.tau}
    return tau | {
        "rewards/chosen": result.chosen.mean(),
        "rewards/rejected": result.rejected.mean(),
        "rewards/margins": result.margin.mean(),
        "rewards/accuracies": (result.chosen > result.rejected).float().mean(),
        "rewards/preferred_score": pairs.reward_preferred.mean(),
        "rewards/unpreferred_score": pairs.reward_unpreferred.mean(),
        "rewards/candidate_score": pairs.reward_candidates.mean(),
        "gate/share_below_tau": pairs.gate.use_unpreferred.float().mean(),
        "weights/beta_w": weight.mean(),
        "errors/winner_policy": winner.policy.detach().mean(),
        "errors/winner_difference": winner.difference.detach().mean(),
        "errors/loser_difference": loser.difference.detach().mean(),
    }
