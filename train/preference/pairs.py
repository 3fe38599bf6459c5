"""Where preference pairs come from: the semi-online sampler of SoPo.

The preferred motion comes from the dataset; the unpreferred one is the worst, by reward, of K
motions that the current policy has just generated for the same caption (Algorithm 1).
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from data_loaders.humanml import MotionBatch
from model.generator import MotionGenerator, SamplerOptions
from model.text_encoders import Condition
from tmr.reward import Reward, motion_similarity
from train.preference.losses import preferred_similarity, worst_candidate


@dataclass(frozen=True)
class PreferenceBatch:
    """One batch of pairs. Motions are normalised by the generator's statistics.

    preferred, unpreferred ``[B, T, D]``; lengths ``[B]``; rewards ``[B]`` in [0, 1]; similarity
    S(x_w) ``[B]``; use_unpreferred ``[B]`` bool: r(x_l) < tau; tau: the threshold used.
    """

    preferred: Tensor
    unpreferred: Tensor
    lengths: Tensor
    condition: Condition
    reward_preferred: Tensor
    reward_unpreferred: Tensor
    reward_candidates: Tensor
    similarity: Tensor
    use_unpreferred: Tensor
    tau: float


class RewardThreshold:
    """The gate's tau: a constant, or a quantile of the latest worst-of-K rewards.

    With a quantile q, tau is the q-quantile of the last `window` rewards seen, so that about a
    share q of the unpreferred motions passes the gate. `observe` must be fed the base model's
    rewards before the first step.
    """

    def __init__(self, tau: float | None, quantile: float | None, window: int = 1024) -> None:
        if (tau is None) == (quantile is None):
            raise ValueError("give either tau or quantile")
        self.tau, self.quantile = tau, quantile
        self.recent: deque[float] = deque(maxlen=window)

    def observe(self, rewards: Tensor) -> None:
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


@dataclass
class SemiOnlineSampler:
    """Draws K candidates per caption from `policy`, scores them and picks the unpreferred one.

    `similarity_space` is ``"reward"`` (embeddings of the reward model) or ``"features"`` (cosine
    of normalised motion features over the valid frames); both on the scale (cos + 1) / 2.
    """

    policy: MotionGenerator
    reward: Reward
    threshold: RewardThreshold
    num_candidates: int = 4
    sampler: SamplerOptions = SamplerOptions()
    guidance: float = 2.5
    similarity_space: str = "reward"

    @torch.no_grad()
    def __call__(
        self, batch: MotionBatch, condition: Condition, rng: torch.Generator | None
    ) -> PreferenceBatch:
        """Sample, score, choose and gate; no gradient flows into anything here."""
        candidates, raw, rewards = self._candidates(batch, condition, rng)
        size, k = rewards.shape
        lengths = batch.lengths.repeat_interleave(k)
        worst = worst_candidate(rewards)
        rows = torch.arange(size, device=worst.device)
        reward_unpreferred = rewards[rows, worst]
        tau = self.threshold.value()
        self.threshold.observe(reward_unpreferred)
        preferred_raw = self.policy.stats.denormalize(batch.motion)
        return PreferenceBatch(
            preferred=batch.motion,
            unpreferred=candidates.view(size, k, *candidates.shape[1:])[rows, worst],
            lengths=batch.lengths,
            condition=condition,
            reward_preferred=self.reward.score(preferred_raw, batch.lengths, batch.captions),
            reward_unpreferred=reward_unpreferred,
            reward_candidates=rewards,
            similarity=self._similarity(batch, candidates, preferred_raw, raw, lengths),
            use_unpreferred=reward_unpreferred < tau,
            tau=tau,
        )

    @torch.no_grad()
    def worst_rewards(
        self, batch: MotionBatch, condition: Condition, rng: torch.Generator | None
    ) -> Tensor:
        """Reward ``[B]`` of the worst of K candidates per caption."""
        return self._candidates(batch, condition, rng)[2].amin(dim=1)

    def _candidates(
        self, batch: MotionBatch, condition: Condition, rng: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised and raw candidates ``[B*K, T, D]``, and their rewards ``[B, K]``.

        Like the motions of the dataset, candidates are zero beyond their length: a model without
        frame masking sees those frames.
        """
        k = self.num_candidates
        lengths = batch.lengths.repeat_interleave(k)
        candidates = self.policy.sample(
            condition.repeat_interleave(k), lengths, self.sampler, self.guidance, generator=rng
        )
        padding = ~batch.mask.repeat_interleave(k, dim=0).unsqueeze(-1)
        candidates = _match_frames(candidates, batch.motion.shape[1]).masked_fill(padding, 0.0)
        captions = [caption for caption in batch.captions for _ in range(k)]
        raw = self.policy.stats.denormalize(candidates)
        return candidates, raw, self.reward.score(raw, lengths, captions).view(-1, k)

    def _similarity(
        self,
        batch: MotionBatch,
        candidates: Tensor,
        preferred_raw: Tensor,
        candidates_raw: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """S(x_w) ``[B]`` in the chosen space."""
        k = self.num_candidates
        if self.similarity_space == "reward":
            preferred = self.reward.embed_motions(preferred_raw, batch.lengths)
            generated = self.reward.embed_motions(candidates_raw, lengths)
        else:
            preferred, generated = batch.motion.flatten(1), candidates.flatten(1)
        similarities = motion_similarity(preferred.repeat_interleave(k, dim=0), generated)
        return preferred_similarity(similarities.view(-1, k))


def _match_frames(motions: Tensor, frames: int) -> Tensor:
    """Cut or zero-pad ``[N, T', D]`` to `frames`; both ends lie beyond every valid frame."""
    missing = frames - motions.shape[1]
    if missing > 0:
        return torch.nn.functional.pad(motions, (0, 0, 0, missing))
    return motions[:, :frames]
