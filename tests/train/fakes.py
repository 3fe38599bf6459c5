"""Stand-ins for the generator and the reward in the tests of preference training."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch
from data_loaders.skeleton import KIT, Skeleton
from model.mdm.generator import MDMGenerator
from model.seam import Samples
from model.text.encoders import BuiltinEncoder, Condition
from tests.model.tiny import tiny_generator, tiny_stats
from train.preference.pairs import Key
from utils.masks import length_mask, zero_padding

CAPTIONS = ["a person walks", "a man waves", "someone kicks", "a person turns left"]
LENGTHS = [12, 8, 12, 4]
KEYS = [Key(f"{row:06d}", caption) for row, caption in enumerate(CAPTIONS)]


class FirstFeature:
    """Reward = sigmoid of the mean first raw feature over valid frames; remembers its inputs.

    The embedding is the mean raw motion over valid frames.
    """

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        assert len(raw) == len(captions)
        self.seen.append(raw.x)
        return self.embed(raw)[:, 0].sigmoid()

    def embed(self, raw: Samples) -> Tensor:
        valid = length_mask(raw.frames, raw.x.shape[1]).unsqueeze(-1)
        return raw.x.masked_fill(~valid, 0).sum(1) / raw.frames[:, None]

    def check(self, skeleton: Skeleton | None) -> None:
        pass


class ScriptedGenerator(MDMGenerator):
    """ "Samples" the raw motions that it was given, whatever the condition."""

    asked: list[tuple[Condition, Samples]]

    @staticmethod
    def of(raw: Tensor) -> "ScriptedGenerator":
        scripted = ScriptedGenerator(**vars(tiny_generator(KIT)))
        scripted.motions, scripted.asked = scripted.stats.normalize(raw), []
        return scripted

    def draw(self, condition, lengths, rng=None, noise=None, step_noise=None, start=None) -> Tensor:
        self.asked.append((condition, lengths))
        return self.motions


class Spy(MDMGenerator):
    """A tiny MDM that remembers every call of its denoising error and the mode of its network."""

    calls: list[dict]

    @staticmethod
    def of(seed: int = 0, **changes) -> "Spy":
        spy = Spy(**vars(tiny_generator(KIT, seed, **changes)))
        spy.calls = []
        return spy

    def with_model(self, model: nn.Module) -> "Spy":
        other = replace(self, model=model)
        other.calls = []
        return other

    def error(self, samples, t, noise, condition, drop_text=None) -> Tensor:
        self.calls.append(
            {
                "motion": samples.x,
                "lengths": samples.lengths,
                "t": t,
                "noise": noise,
                "condition": condition,
                "drop_text": drop_text,
                "training": self.model.training,
            }
        )
        return super().error(samples, t, noise, condition, drop_text)


def make_winners(seed: int = 0, frames: int = 12) -> Samples:
    """Four normalised KIT motions of 12, 8, 12 and 4 frames, zero beyond their length."""
    lengths = torch.tensor(LENGTHS)
    rng = torch.Generator().manual_seed(seed)
    motion = torch.randn(4, frames, KIT.feature_dim, generator=rng)
    return Samples(zero_padding(motion, lengths), lengths)


def make_batch(seed: int = 0, frames: int = 12) -> MotionBatch:
    """The same four motions raw, as a dataset gives them."""
    winners = make_winners(seed, frames)
    raw = zero_padding(tiny_stats(KIT).denormalize(winners.x), winners.frames)
    return MotionBatch(raw, winners.frames, CAPTIONS, [()] * 4, [key.clip for key in KEYS])


def make_condition() -> Condition:
    return BuiltinEncoder().encode(CAPTIONS)
