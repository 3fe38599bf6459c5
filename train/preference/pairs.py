"""Where preference pairs come from while training: the motions that the policy has just generated.

In SoPo's semi-online pairs (Algorithm 1) the preferred motion comes from the dataset; the
unpreferred one is the worst, by reward, of K motions that the current policy generates for the
same caption. Pairs that were generated beforehand are in `train.preference.fixed_pairs`.
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from data_loaders.humanml import MotionBatch
from model.mdm.generator import MotionGenerator, SamplerOptions, StartPoint
from model.text.encoders import Condition
from rewards.tmr import Reward, motion_similarity
from train.preference.losses import best_candidate, preferred_similarity, worst_candidate
from train.preference.methods import Pairing


@dataclass(frozen=True)
class PreferenceBatch:
    """One batch of pairs. Motions are normalised by the generator's statistics.

    preferred, unpreferred ``[B, T, D]``; lengths ``[B]``; rewards ``[B]`` in [0, 1], those of all
    candidates ``[B, K]``; similarity S(x_w) ``[B]``, None where the method does not weight by it;
    use_unpreferred ``[B]`` bool, the gate; tau: its threshold, None where it depends on none.
    """

    preferred: Tensor
    unpreferred: Tensor
    lengths: Tensor
    condition: Condition
    reward_preferred: Tensor
    reward_unpreferred: Tensor
    reward_candidates: Tensor
    similarity: Tensor | None
    use_unpreferred: Tensor
    tau: float | None = None


class PairSource(Protocol):
    """Turns a batch of the dataset into pairs; no gradient flows into them."""

    pairing: Pairing

    def __call__(
        self, batch: MotionBatch, condition: Condition, rng: torch.Generator | None
    ) -> PreferenceBatch: ...


class RewardThreshold:
    """The gate's tau: a constant, or a quantile of the latest worst-of-K rewards.

    With a quantile q, tau is the q-quantile of the last `window` rewards seen, so that about a
    share q of the unpreferred motions passes the gate. `observe` must be fed the base model's
    rewards before the first step; an `anchored` threshold keeps to those, so that it does not
    follow a policy whose rewards fall.
    """

    def __init__(
        self,
        tau: float | None,
        quantile: float | None,
        window: int = 1024,
        anchored: bool = False,
    ) -> None:
        if (tau is None) == (quantile is None):
            raise ValueError("give either tau or quantile")
        self.tau, self.quantile = tau, quantile
        self.anchored = anchored
        self.recent: deque[float] = deque(maxlen=window)

    def observe(self, rewards: Tensor) -> None:
        if self.anchored and self.recent:
            return
        self.recent.extend(rewards.tolist())

    def value(self) -> float:
        if self.quantile is None:
            assert self.tau is not None
            return self.tau
        if not self.recent:
            raise RuntimeError("a quantile threshold needs observed rewards first")
        return float(torch.tensor(list(self.recent)).quantile(self.quantile))

    def state_dict(self) -> dict[str, list[float]]:
        return {"recent": list(self.recent)}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.recent.clear()  # a resumed run has probed again; its saved rewards hold that probe
        self.recent.extend(state["recent"])


@dataclass(frozen=True)
class Candidates:
    """K motions per caption ``[B, K, T, D]``, normalised and raw, and their rewards ``[B, K]``."""

    motions: Tensor
    raw: Tensor
    rewards: Tensor


@dataclass
class CandidateSampler:
    """Generates K candidates per caption with a frozen or current generator, and scores them.

    With `start` < 1 they begin as the batch's motions noised to that share of the steps (after
    SDEdit, Meng et al. 2022).
    """

    policy: MotionGenerator
    reward: Reward
    num_candidates: int = 4
    sampler: SamplerOptions = SamplerOptions()
    guidance: float = 2.5
    start: float = 1.0

    @torch.no_grad()
    def __call__(
        self, batch: MotionBatch, condition: Condition, rng: torch.Generator | None
    ) -> Candidates:
        """Candidates with the lengths of the batch.

        Like the motions of the dataset, they are zero beyond their length: a model without frame
        masking sees those frames.
        """
        size, k = len(batch.lengths), self.num_candidates
        lengths = batch.lengths.repeat_interleave(k)
        start = None
        if self.start < 1:
            start = StartPoint(batch.motion.repeat_interleave(k, dim=0), self.start)
        motions = self.policy.sample(
            condition.repeat_interleave(k),
            lengths,
            self.sampler,
            self.guidance,
            generator=rng,
            start=start,
        )
        padding = ~batch.mask.repeat_interleave(k, dim=0).unsqueeze(-1)
        motions = match_frames(motions, batch.motion.shape[1]).masked_fill(padding, 0.0)
        captions = [caption for caption in batch.captions for _ in range(k)]
        raw = self.policy.stats.denormalize(motions)
        rewards = self.reward.score(raw, lengths, captions)
        return Candidates(*(x.unflatten(0, (size, k)) for x in (motions, raw, rewards)))


@dataclass
class OnlinePairs:
    """Draws K candidates from the current policy and chooses, gates and compares as `pairing` says.

    `similarity_space` is ``"reward"`` (embeddings of the reward model) or ``"features"`` (cosine
    of normalised motion features over the valid frames); both on the scale (cos + 1) / 2.
    """

    candidates: CandidateSampler
    threshold: RewardThreshold
    pairing: Pairing
    similarity_space: str = "reward"

    @torch.no_grad()
    def __call__(
        self, batch: MotionBatch, condition: Condition, rng: torch.Generator | None
    ) -> PreferenceBatch:
        """Sample, score, choose and gate."""
        drawn = self.candidates(batch, condition, rng)
        rewards, worst = drawn.rewards, worst_candidate(drawn.rewards)
        rows = torch.arange(len(rewards), device=rewards.device)
        preferred_raw = self.candidates.policy.stats.denormalize(batch.motion)
        if self.pairing.preferred == "best":
            best = best_candidate(rewards)
            preferred, reward_preferred = drawn.motions[rows, best], rewards[rows, best]
        else:
            preferred = batch.motion
            score = self.candidates.reward.score
            reward_preferred = score(preferred_raw, batch.lengths, batch.captions)
        gate, tau = self._gate(rewards[rows, worst])
        return PreferenceBatch(
            preferred=preferred,
            unpreferred=drawn.motions[rows, worst],
            lengths=batch.lengths,
            condition=condition,
            reward_preferred=reward_preferred,
            reward_unpreferred=rewards[rows, worst],
            reward_candidates=rewards,
            similarity=self._similarity(batch, drawn, preferred_raw),
            use_unpreferred=gate,
            tau=tau,
        )

    def _gate(self, rewards: Tensor) -> tuple[Tensor, float | None]:
        """Which unpreferred motions count ``[B]``, and tau; feeds the threshold after using it."""
        if self.pairing.gate != "below_tau":
            return torch.full_like(rewards, self.pairing.gate == "always", dtype=torch.bool), None
        tau = self.threshold.value()
        self.threshold.observe(rewards)
        return rewards < tau, tau

    def _similarity(
        self, batch: MotionBatch, drawn: Candidates, preferred_raw: Tensor
    ) -> Tensor | None:
        """S(x_w) ``[B]`` of the dataset's clip in the chosen space."""
        if not self.pairing.weighted:
            return None
        size, k = drawn.rewards.shape
        if self.similarity_space == "reward":
            embed = self.candidates.reward.embed_motions
            preferred = embed(preferred_raw, batch.lengths)
            generated = embed(drawn.raw.flatten(0, 1), batch.lengths.repeat_interleave(k))
        else:
            preferred, generated = batch.motion.flatten(1), drawn.motions.flatten(0, 1).flatten(1)
        similarities = motion_similarity(preferred.repeat_interleave(k, dim=0), generated)
        return preferred_similarity(similarities.view(size, k))


def match_frames(motions: Tensor, frames: int) -> Tensor:
    """Cut or zero-pad ``[N, T', D]`` to `frames`; both ends lie beyond every valid frame."""
    missing = frames - motions.shape[1]
    if missing > 0:
        return torch.nn.functional.pad(motions, (0, 0, 0, missing))
    return motions[:, :frames]
