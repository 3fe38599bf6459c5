"""Best of N: the inference-time alternative to preference optimisation."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from data_loaders.skeleton import Skeleton
from diffusion.sampling import SamplerOptions
from model.families import MotionFamily
from model.seam import Samples
from model.text.condition import Condition
from rewards.load import RewardOptions
from rewards.seam import Reward
from utils.options import option


@dataclass
class BestOfOptions(RewardOptions):
    """For every script that may keep the best of several motions per prompt."""

    best_of: int = option(
        1, "motions per prompt, of which the reward keeps the best", minimum=1, maximum=1024
    )

    def around(
        self, generator: MotionFamily, reward: Reward, at_once: int
    ) -> "MotionFamily | BestOf":
        """The generator itself, or the best of its motions; at_once: generated at a time."""
        return generator if self.best_of == 1 else BestOf(generator, reward, self.best_of, at_once)


@dataclass(frozen=True)
class CaptionedCondition:
    """Encoded captions that are still known as text, for a reward to read."""

    condition: Condition
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: Tensor | slice) -> "CaptionedCondition":
        chosen = torch.arange(len(self))[rows].tolist()
        return CaptionedCondition(self.condition[rows], [self.captions[i] for i in chosen])


@dataclass(frozen=True)
class BestOf:
    """A generator whose samples are the best of `count` by a reward.

    It samples as a `model.seam.MotionGenerator` does, so figures and pictures take it as one; no
    training does. rewards: of all motions so far, ``[B, count]`` per call.
    """

    generator: MotionFamily
    reward: Reward
    count: int
    batch_size: int
    rewards: list[Tensor] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return self.generator.device

    @property
    def skeleton(self) -> Skeleton:
        return self.generator.skeleton

    @property
    def levels(self) -> int:
        return self.generator.levels

    @property
    def sampler(self) -> SamplerOptions:
        return self.generator.sampler

    def blank(self, lengths: Tensor) -> Samples:
        return self.generator.blank(lengths)

    def encode_text(self, captions: list[str]) -> CaptionedCondition:
        return CaptionedCondition(self.generator.encode_text(captions), captions)

    def decode(self, samples: Samples) -> Samples:
        return self.generator.decode(samples)

    def sample(
        self, condition: CaptionedCondition, like: Samples, rng: torch.Generator | None
    ) -> Samples:
        """One sample per caption; `batch_size` of its candidates are generated at once.

        Of equal rewards the first wins; NaN loses.
        """
        at_once = max(1, self.batch_size // self.count)
        parts = [
            self._best(condition[rows], like[rows.to(like.x.device)], rng)
            for rows in torch.arange(len(condition)).split(at_once)
        ]
        return Samples.cat(parts)

    def _best(
        self, condition: CaptionedCondition, like: Samples, rng: torch.Generator | None
    ) -> Samples:
        texts = [caption for caption in condition.captions for _ in range(self.count)]
        candidates = self.generator.sample(
            condition.condition.repeat_interleave(self.count),
            like.repeat_interleave(self.count),
            rng,
        )
        scores = self.reward.score(self.generator.decode(candidates), texts)
        scores = scores.view(-1, self.count)
        self.rewards.append(scores.cpu())
        best = scores.nan_to_num(nan=-torch.inf).argmax(dim=1)
        first = torch.arange(len(best), device=best.device) * self.count
        return candidates[(first + best).to(candidates.x.device)]

    def with_sampler(self, sampler: SamplerOptions) -> "BestOf":
        """The same choice among motions of another sampler; both count the rewards."""
        return replace(self, generator=replace(self.generator, sampler=sampler))

    def summary(self) -> str:
        """What choosing gained, in one line."""
        rewards = torch.cat(self.rewards)
        first, mean, best = rewards[:, 0].mean(), rewards.mean(), rewards.amax(dim=1).mean()
        return (
            f"reward of {len(rewards)} prompts: first {first:.3f}, mean {mean:.3f}, "
            f"best of {self.count} {best:.3f}"
        )
