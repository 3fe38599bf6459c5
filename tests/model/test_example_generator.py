"""What every generator behind the seam must promise, shown on the smallest one.

A new family is tested alike: put its generator in place of `PointGenerator`.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from data_loaders.skeleton import Skeleton
from model.seam import Generator, Samples
from tests.model.example_generator import PointGenerator
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.methods import METHODS
from train.preference.options import PreferenceOptions
from train.preference.pairs import Key

ONLINE = [name for name, pairs in METHODS.items() if all(pair.online for pair in pairs)]
TARGET = torch.tensor([1.0, -1.0])


class Nearness:
    """Points near the target are good; a `rewards.seam.Reward` of raw points ``[B, 2]``."""

    def score(self, raw: Samples, captions: Sequence[str]) -> Tensor:
        return (-(raw.x - TARGET).square().sum(dim=1)).exp()

    def embed(self, raw: Samples) -> Tensor:
        return torch.cat([raw.x, torch.ones(len(raw), 1)], dim=1)

    def check(self, skeleton: Skeleton | None) -> None:
        pass


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(seed: int = 0, size: int = 32) -> tuple[Samples, list[Key]]:
    points = TARGET + 0.3 * torch.randn(size, 2, generator=rng(seed))
    return Samples(points), [Key(str(row), "") for row in range(size)]


def test_raw_samples_come_back() -> None:
    generator: Generator = PointGenerator.new(0)
    raw, _ = batch()
    torch.testing.assert_close(generator.decode(generator.encode(raw, rng())).x, raw.x)


def test_samples_follow_the_seed_and_carry_no_gradient() -> None:
    generator = PointGenerator.new(0)
    raw, _ = batch()
    like, condition = generator.encode(raw), generator.encode_text([""] * len(raw))
    first, second, other = (generator.sample(condition, like, rng(s)).x for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)
    assert not first.requires_grad


def test_less_signal_is_left_at_higher_levels() -> None:
    generator = PointGenerator.new(0)
    signal = generator.signal(torch.arange(generator.levels))
    assert torch.all(signal.diff() < 0)
    assert 0 < float(signal[-1]) < float(signal[0]) < 1


@pytest.mark.parametrize("method", ONLINE)
def test_every_online_method_tunes_it_and_leaves_the_reference_alone(method: str) -> None:
    policy = PointGenerator.new(0)
    options = PreferenceOptions(method=method, num_candidates=3, tau=0.9)
    algorithm = PreferenceAlgorithm(options, policy, Nearness())
    before = [p.clone() for p in algorithm.reference.model.parameters()]
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        outcome = algorithm.step(*batch(step), rng(step))
        optimizer.zero_grad()
        outcome.loss.mean().backward()
        optimizer.step()
        losses.append(outcome.loss.mean().item())
    after = algorithm.reference.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert sum(losses[-10:]) < sum(losses[:10])


def test_a_checkpoint_holds_the_average_where_there_is_one(tmp_path) -> None:
    generator, average = PointGenerator.new(0), PointGenerator.new(1)
    path = generator.save(tmp_path, 3, average.model, {})
    assert path.name == "model000000003.pt"
    found = torch.load(path, weights_only=True)
    assert all(torch.equal(found[k], v) for k, v in average.model.state_dict().items())
