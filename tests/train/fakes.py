"""Stand-ins for the generator and the reward in the tests of preference training."""

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch
from data_loaders.skeleton import KIT
from diffusion.sampling import SamplerOptions
from model.mdm.generator import MDMGenerator
from model.text.encoders import BuiltinEncoder, Condition
from tests.model.tiny import tiny_generator, tiny_stats
from utils.masks import length_mask

CAPTIONS = ["a person walks", "a man waves", "someone kicks", "a person turns left"]
LENGTHS = [12, 8, 12, 4]


class FirstFeature:
    """Reward = sigmoid of the mean first raw feature over valid frames; remembers its inputs.

    The embedding is the mean raw motion over valid frames.
    """

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def score(self, motions: Tensor, lengths: Tensor, captions: list[str]) -> Tensor:
        assert len(motions) == len(lengths) == len(captions)
        self.seen.append(motions)
        return self.embed_motions(motions, lengths)[:, 0].sigmoid()

    def embed_motions(self, motions: Tensor, lengths: Tensor) -> Tensor:
        valid = length_mask(lengths, motions.shape[1]).unsqueeze(-1)
        return motions.masked_fill(~valid, 0).sum(1) / lengths[:, None]


class ScriptedGenerator:
    """ "Samples" the raw motions that it was given, whatever the condition."""

    def __init__(self, raw: Tensor) -> None:
        self.model, self.device = nn.Identity(), torch.device("cpu")
        self.stats = tiny_stats(KIT)
        self.motions = self.stats.normalize(raw)
        self.asked: list[tuple[Condition, Tensor, SamplerOptions, float]] = []

    def sample(self, condition, lengths, sampler, guidance, generator=None, start=None) -> Tensor:
        self.asked.append((condition, lengths, sampler, guidance))
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
        other = Spy(**{**{k: v for k, v in vars(self).items() if k != "calls"}, "model": model})
        other.calls = []
        return other

    def denoising_error(self, motion, lengths, t, noise, condition, drop_text=None) -> Tensor:
        self.calls.append(
            {
                "motion": motion,
                "lengths": lengths,
                "t": t,
                "noise": noise,
                "condition": condition,
                "drop_text": drop_text,
                "training": self.model.training,
            }
        )
        return super().denoising_error(motion, lengths, t, noise, condition, drop_text)


def make_batch(seed: int = 0, frames: int = 12) -> MotionBatch:
    """Four normalised KIT motions of 12, 8, 12 and 4 frames, zero beyond their length."""
    lengths = torch.tensor(LENGTHS)
    rng = torch.Generator().manual_seed(seed)
    motion = torch.randn(4, frames, KIT.feature_dim, generator=rng)
    motion = motion * length_mask(lengths, frames).unsqueeze(-1)
    return MotionBatch(motion, lengths, CAPTIONS, [()] * 4, [f"{i:06d}" for i in range(4)])


def make_condition() -> Condition:
    return BuiltinEncoder().encode(CAPTIONS)
