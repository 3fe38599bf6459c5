"""Where preference pairs come from while training: the samples that the policy has just generated.

In SoPo's semi-online pairs (Algorithm 1) the preferred sample comes from the dataset; the
unpreferred one is the worst, by reward, of K samples that the current policy generates for the
same caption. Pairs that were generated beforehand are in `train.preference.fixed_pairs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from model.seam import Generator, Samples
from model.text.condition import Condition
from rewards.seam import Reward, similarity
from train.preference.gate import GateDecision, RewardThreshold
from train.preference.losses import best_candidate, preferred_similarity, worst_candidate
from train.preference.methods import Pairing


@dataclass(frozen=True)
class Key:
    """What one item of a batch is: a clip (or picture) and the caption drawn for it."""

    clip: str
    caption: str


def captions_of(keys: Sequence[Key]) -> list[str]:
    return [key.caption for key in keys]


@dataclass(frozen=True)
class PreferenceBatch:
    """One batch of B pairs in the generator's space.

    Rewards ``[B]`` in [0, 1], those of all candidates ``[B, K]``; similarity S(x_w) ``[B]``, None
    where the method does not weight by it.
    """

    preferred: Samples
    unpreferred: Samples
    condition: Condition
    gate: GateDecision
    reward_preferred: Tensor
    reward_unpreferred: Tensor
    reward_candidates: Tensor
    similarity: Tensor | None = None


class PairSource(Protocol):
    """Turns winners of the dataset into pairs; no gradient flows into them."""

    pairing: Pairing

    def __call__(
        self,
        winners: Samples,
        keys: Sequence[Key],
        condition: Condition,
        rng: torch.Generator | None,
    ) -> PreferenceBatch: ...


@dataclass(frozen=True)
class Candidates:
    """K samples per caption, caption by caption, in the generator's space and raw (B*K each), and
    their rewards ``[B, K]``."""

    samples: Samples
    raw: Samples
    rewards: Tensor

    def rows(self, index: Tensor) -> Tensor:
        """Where candidate `index` ``[B]`` of each caption stands among the B*K."""
        size, k = self.rewards.shape
        return torch.arange(size, device=index.device) * k + index


@dataclass
class CandidateSampler:
    """Generates K candidates per caption with a frozen or current generator, and scores them.

    With `start` < 1 they begin as the winners noised to that share of the levels.
    """

    policy: Generator
    reward: Reward
    num_candidates: int = 4
    start: float = 1.0

    @torch.no_grad()
    def __call__(
        self,
        winners: Samples,
        captions: list[str],
        condition: Condition,
        rng: torch.Generator | None,
    ) -> Candidates:
        """Candidates with the lengths of the winners."""
        k = self.num_candidates
        like = winners.repeat_interleave(k)
        samples = self.policy.sample(condition.repeat_interleave(k), like, rng, self.start)
        raw = self.policy.decode(samples)
        rewards = self.reward.score(raw, [caption for caption in captions for _ in range(k)])
        return Candidates(samples, raw, rewards.view(-1, k))


@dataclass
class OnlinePairs:
    """Draws K candidates from the current policy and chooses, gates and compares as `pairing` says.

    `similarity_space` is ``"reward"`` (embeddings of the reward model) or ``"features"`` (cosine
    of samples in the generator's space); both on the scale (cos + 1) / 2.
    """

    candidates: CandidateSampler
    threshold: RewardThreshold
    pairing: Pairing
    similarity_space: str = "reward"

    @torch.no_grad()
    def __call__(
        self,
        winners: Samples,
        keys: Sequence[Key],
        condition: Condition,
        rng: torch.Generator | None,
    ) -> PreferenceBatch:
        """Sample, score, choose and gate."""
        captions = captions_of(keys)
        drawn = self.candidates(winners, captions, condition, rng)
        worst = drawn.rows(worst_candidate(drawn.rewards))
        rewards = drawn.rewards.flatten()
        # as the policy can express them, so that nothing but the motion sets them apart
        winners_raw = self.candidates.policy.decode(winners)
        if self.pairing.preferred == "best":
            best = drawn.rows(best_candidate(drawn.rewards))
            preferred, reward_preferred = drawn.samples[best], rewards[best]
        else:
            preferred = winners
            reward_preferred = self.candidates.reward.score(winners_raw, captions)
        return PreferenceBatch(
            preferred=preferred,
            unpreferred=drawn.samples[worst],
            condition=condition,
            gate=self.threshold.decide(self.pairing.gate, rewards[worst]),
            reward_preferred=reward_preferred,
            reward_unpreferred=rewards[worst],
            reward_candidates=drawn.rewards,
            similarity=self._similarity(winners, winners_raw, drawn),
        )

    def _similarity(
        self, winners: Samples, winners_raw: Samples, drawn: Candidates
    ) -> Tensor | None:
        """S(x_w) ``[B]`` of the dataset's clip in the chosen space."""
        if not self.pairing.weighted:
            return None
        if self.similarity_space == "reward":
            embed = self.candidates.reward.embed
            preferred, generated = embed(winners_raw), embed(drawn.raw)
        else:
            preferred, generated = winners.x.flatten(1), drawn.samples.x.flatten(1)
        k = drawn.rewards.shape[1]
        similarities = similarity(preferred.repeat_interleave(k, dim=0), generated)
        return preferred_similarity(similarities.view(-1, k))
