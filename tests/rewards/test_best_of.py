"""Best of N behind the seam of a generator."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_loaders.skeleton import HUMANML, Skeleton
from model.families import load_generator
from model.seam import Samples
from rewards.best_of import BestOf, BestOfOptions
from tests.sample.checkpoints import write_tiny_checkpoint

CAPTIONS = ["walk", "jump", "run"]


class Height:
    """A reward that looks at the height of the root; it keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Samples] = []
        self.captions: list[str] = []

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        self.seen.append(raw)
        self.captions += captions
        return raw.x[:, 0, 3].sigmoid()

    def embed(self, raw: Samples) -> Tensor:
        return raw.x.flatten(1)

    def check(self, skeleton: Skeleton | None) -> None:
        assert skeleton is HUMANML


@pytest.fixture
def best(tmp_path: Path) -> BestOf:
    generator = load_generator(write_tiny_checkpoint(tmp_path / "tiny"))
    return BestOf(generator, Height(), count=4, batch_size=8)


def sample(best: BestOf, seed: int = 0) -> Tensor:
    like = best.blank(torch.tensor([12, 8, 10]))
    rng = torch.Generator().manual_seed(seed)
    return best.decode(best.sample(best.encode_text(CAPTIONS), like, rng)).x


def test_the_best_of_each_caption_is_kept(best: BestOf) -> None:
    chosen = sample(best)
    candidates = torch.cat([raw.x for raw in best.reward.seen]).view(3, 4, 12, -1)
    heights = candidates[:, :, 0, 3]
    torch.testing.assert_close(chosen[:, 0, 3], heights.amax(dim=1))
    assert best.reward.captions == [caption for caption in CAPTIONS for _ in range(4)]
    assert [len(raw) for raw in best.reward.seen] == [8, 4], "batch_size counts motions"
    assert (heights.amax(dim=1) > heights[:, 0]).any()


def test_the_gain_is_told(best: BestOf) -> None:
    sample(best)
    rewards = torch.cat(best.rewards)
    assert rewards.shape == (3, 4)
    assert best.summary() == (
        f"reward of 3 prompts: first {rewards[:, 0].mean():.3f}, mean {rewards.mean():.3f}, "
        f"best of 4 {rewards.amax(dim=1).mean():.3f}"
    )


def test_the_seed_decides(best: BestOf) -> None:
    torch.testing.assert_close(sample(best), sample(best))
    assert not torch.equal(sample(best), sample(best, seed=1))


def test_nan_loses(best: BestOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(raw: Samples, captions: list[str]) -> Tensor:
        rewards = torch.full((len(raw),), torch.nan)
        rewards[2::4] = 0.1
        return rewards

    monkeypatch.setattr(best.reward, "score", score)
    like = best.blank(torch.tensor([12, 12, 12]))
    condition = best.encode_text(CAPTIONS)
    chosen = best.sample(condition, like, torch.Generator().manual_seed(0))
    parts = []
    rng = torch.Generator().manual_seed(0)
    for rows in (slice(0, 2), slice(2, 3)):
        one = condition[rows].condition.repeat_interleave(4)
        parts.append(best.generator.sample(one, like[rows].repeat_interleave(4), rng).x)
    torch.testing.assert_close(chosen.x, torch.cat(parts)[2::4])


def test_one_motion_per_prompt_is_the_generator_itself(best: BestOf) -> None:
    assert BestOfOptions(best_of=1).around(best.generator, best.reward, 8) is best.generator
    around = BestOfOptions(best_of=4).around(best.generator, best.reward, 8)
    assert isinstance(around, BestOf)
    assert (around.count, around.batch_size) == (4, 8)


def test_a_batch_holds_at_least_the_motions_of_one_prompt(best: BestOf) -> None:
    best = replace(best, batch_size=2)
    sample(best)
    assert [len(raw) for raw in best.reward.seen] == [4, 4, 4]
