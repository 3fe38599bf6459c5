"""The semi-online sampler and its threshold, with a scripted policy and a simple reward."""

import pytest
import torch
from torch import Tensor

from data_loaders.skeleton import KIT
from model.seam import MotionGenerator, Samples
from tests.model.tiny import tiny_generator
from tests.train.fakes import (
    CAPTIONS,
    KEYS,
    LENGTHS,
    FirstFeature,
    ScriptedGenerator,
    make_condition,
    make_winners,
)
from train.preference.gate import RewardThreshold
from train.preference.losses import preferred_weight
from train.preference.methods import METHODS
from train.preference.pairs import CandidateSampler, OnlinePairs, PreferenceBatch

K = 3
LEVELS = torch.tensor([[2.0, -1.0, 0.0], [1.0, 2.0, 3.0], [0.0, -2.0, -3.0], [-1.0, -0.5, 4.0]])
WORST = [1, 0, 2, 0]


def raw_candidates(frames: int = 12) -> Tensor:
    """Raw motions ``[4 * K, T, D]`` whose first feature is constant: LEVELS, row by row."""
    rng = torch.Generator().manual_seed(4)
    raw = torch.randn(4 * K, frames, KIT.feature_dim, generator=rng)
    raw[..., 0] = LEVELS.reshape(-1, 1)
    return raw


def make_pairs(
    raw: Tensor, tau: float = 0.5, method: str = "sopo", space: str = "reward"
) -> OnlinePairs:
    candidates = CandidateSampler(ScriptedGenerator.of(raw), FirstFeature(), K)
    return OnlinePairs(candidates, RewardThreshold(tau, None), METHODS[method][0], space)


def policy_pairs(policy: MotionGenerator, method: str = "sopo") -> OnlinePairs:
    candidates = CandidateSampler(policy, FirstFeature(), 2)
    return OnlinePairs(candidates, RewardThreshold(0.5, None), METHODS[method][0])


def draw(pairs: OnlinePairs) -> PreferenceBatch:
    return pairs(make_winners(), KEYS, make_condition(), None)


def test_the_unpreferred_motion_is_the_worst_of_k_by_reward() -> None:
    raw = raw_candidates()
    pairs = make_pairs(raw)
    found = draw(pairs)
    torch.testing.assert_close(found.reward_candidates, LEVELS.sigmoid(), rtol=1e-4, atol=1e-5)
    candidates = pairs.candidates.policy.stats.normalize(raw).view(4, K, 12, -1)
    for row, (worst, length) in enumerate(zip(WORST, LENGTHS, strict=True)):
        assert torch.equal(found.unpreferred.x[row, :length], candidates[row, worst, :length])
        assert not found.unpreferred.x[row, length:].any(), "as in the dataset"
    torch.testing.assert_close(
        found.reward_unpreferred, found.reward_candidates.min(1).values, rtol=0, atol=0
    )


def test_only_rewards_below_tau_open_the_gate() -> None:
    found = draw(make_pairs(raw_candidates(), tau=0.3))
    worst = torch.tensor([-1.0, 1.0, -3.0, -1.0]).sigmoid()
    assert (
        found.gate.use_unpreferred.tolist() == (worst < 0.3).tolist() == [True, False, True, True]
    )
    assert found.gate.tau == 0.3
    level = found.reward_unpreferred[0].item()
    assert not draw(make_pairs(raw_candidates(), tau=level)).gate.use_unpreferred[0], (
        "strictly below"
    )


def test_the_reward_sees_raw_motions_of_winners_and_candidates() -> None:
    raw = raw_candidates()
    pairs = make_pairs(raw)
    found = draw(pairs)
    seen_candidates, seen_winners = pairs.candidates.reward.seen
    valid = make_winners().mask.repeat_interleave(K, dim=0)
    torch.testing.assert_close(seen_candidates[valid], raw[valid], rtol=1e-4, atol=1e-4)
    winners = pairs.candidates.policy.decode(make_winners())
    assert torch.equal(seen_winners, winners.x)
    expected = pairs.candidates.reward.score(winners, CAPTIONS)
    assert torch.equal(found.reward_preferred, expected)


def test_every_caption_is_sampled_k_times_with_its_length() -> None:
    pairs = make_pairs(raw_candidates())
    draw(pairs)
    condition, lengths = pairs.candidates.policy.asked[0]
    assert len(pairs.candidates.policy.asked) == 1, "all candidates come from one call"
    assert lengths.tolist() == [n for n in LENGTHS for _ in range(K)]
    assert torch.equal(condition.tokens, make_condition().tokens.repeat_interleave(K, 0))


@pytest.mark.parametrize("frames", [12, 30])
def test_the_pair_has_the_frames_of_the_batch(frames: int) -> None:
    """Sampling gives the longest length; a batch may be padded further (or less)."""
    winners = make_winners(frames=frames)
    found = make_pairs(raw_candidates())(winners, KEYS, make_condition(), None)
    assert found.unpreferred.x.shape == found.preferred.x.shape == (4, frames, KIT.feature_dim)


def test_four_candidates_unless_told_otherwise() -> None:
    """K of the paper."""
    policy = tiny_generator(KIT)
    sampler = CandidateSampler(policy, FirstFeature())
    drawn = sampler(make_winners(), CAPTIONS, policy.encode_text(CAPTIONS), None)
    assert drawn.rewards.shape == (4, 4)


def test_no_gradient_flows_into_a_pair() -> None:
    policy = tiny_generator(KIT)
    pairs = policy_pairs(policy)
    condition = policy.encode_text(CAPTIONS)
    found = pairs(make_winners(), KEYS, condition, torch.Generator().manual_seed(0))
    tensors = [value for value in vars(found).values() if isinstance(value, Tensor)]
    tensors += [found.preferred.x, found.unpreferred.x, found.gate.use_unpreferred]
    assert len(tensors) == 7
    assert not any(value.requires_grad for value in tensors)
    assert found.reward_candidates.shape == (4, 2)


def test_candidates_come_from_the_present_policy() -> None:
    policy = tiny_generator(KIT)
    pairs = policy_pairs(policy)
    winners, condition = make_winners(), policy.encode_text(CAPTIONS)
    first = pairs(winners, KEYS, condition, torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.model.output_process.poseFinal.bias += 1
    second = pairs(winners, KEYS, condition, torch.Generator().manual_seed(0))
    assert (first.unpreferred.x - second.unpreferred.x)[winners.mask].abs().min() > 1e-3


def moved_towards(winners: Tensor, candidates: Tensor, share: float) -> Tensor:
    return torch.lerp(candidates, winners.repeat_interleave(K, dim=0), share)


@pytest.mark.parametrize("space", ["reward", "features"])
def test_the_weight_falls_as_the_winner_gets_closer_to_the_candidates(space: str) -> None:
    raw = raw_candidates()
    winners = ScriptedGenerator.of(raw).stats.denormalize(make_winners().x)
    weights = []
    for share in (0.0, 0.3, 0.6, 0.9, 1.0):
        pairs = make_pairs(moved_towards(winners, raw, share), space=space)
        weights.append(preferred_weight(draw(pairs).similarity, beta=1.0, c=2.0))
    falling = torch.stack(weights)
    assert torch.all(falling.diff(dim=0) < 0)
    torch.testing.assert_close(falling[-1], torch.ones(4), rtol=0, atol=1e-4)  # C - 1 when equal
    assert torch.all((falling >= 1 - 1e-4) & (falling <= 2))


def test_similarity_is_the_smallest_over_the_candidates() -> None:
    """One candidate far away is enough, wherever it stands."""
    raw = ScriptedGenerator.of(raw_candidates()).stats.denormalize(make_winners().x)
    copies = raw.repeat_interleave(K, dim=0)
    opposite = 2 * ScriptedGenerator.of(raw_candidates()).stats.mean - copies
    for position in range(K):
        mixed = copies.clone()
        mixed[position::K] = opposite[position::K]
        found = draw(make_pairs(mixed, space="features")).similarity
        torch.testing.assert_close(found, torch.zeros(4), rtol=0, atol=1e-4)


def test_feature_space_compares_normalised_motion_over_valid_frames() -> None:
    raw = raw_candidates()
    pairs = make_pairs(raw, space="features")
    winners, found = make_winners(), draw(pairs).similarity
    candidates = pairs.candidates.policy.stats.normalize(raw).view(4, K, 12, -1)
    for row, length in enumerate(LENGTHS):
        winner = winners.x[row, :length].flatten()
        others = candidates[row, :, :length].flatten(1)
        cosine = torch.cosine_similarity(winner[None], others).min()
        assert found[row].item() == pytest.approx((cosine.item() + 1) / 2, abs=1e-5)


def test_reward_space_compares_embeddings_of_raw_motions() -> None:
    raw = raw_candidates()
    pairs = make_pairs(raw)
    found, embed = draw(pairs).similarity, pairs.candidates.reward.embed
    winners = embed(pairs.candidates.policy.decode(make_winners()))
    lengths = torch.tensor(LENGTHS).repeat_interleave(K)
    others = embed(Samples(raw, lengths)).view(4, K, -1)
    cosine = torch.cosine_similarity(winners[:, None], others, dim=-1).min(dim=1).values
    torch.testing.assert_close(found, (cosine + 1) / 2, rtol=1e-4, atol=1e-5)
    assert (found - draw(make_pairs(raw, space="features")).similarity).abs().max() > 0.01


@pytest.mark.parametrize("space", ["reward", "features"])
def test_nothing_beyond_a_length_is_read(space: str) -> None:
    raw = raw_candidates()
    clean = draw(make_pairs(raw, space=space))
    lengths = torch.tensor(LENGTHS).repeat_interleave(K)
    beyond = torch.arange(12) >= lengths[:, None]
    dirty = draw(make_pairs(raw.masked_fill(beyond.unsqueeze(-1), 50.0), space=space))
    torch.testing.assert_close(dirty.similarity, clean.similarity, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dirty.reward_candidates, clean.reward_candidates)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_a_quantile_threshold_passes_about_that_share(quantile: float) -> None:
    rng = torch.Generator().manual_seed(0)
    threshold = RewardThreshold(None, quantile)
    threshold.observe(torch.rand(256, generator=rng))
    below = []
    for step in range(60):  # rewards rise during training, as they should
        rewards = 0.003 * step + torch.rand(64, generator=rng)
        below.append((rewards < threshold.value()).float())
        threshold.observe(rewards)
    assert torch.cat(below).mean().item() == pytest.approx(quantile, abs=0.06)


def test_a_quantile_threshold_follows_the_latest_rewards() -> None:
    threshold = RewardThreshold(None, 0.5, window=100)
    threshold.observe(torch.full((100,), 0.2))
    assert threshold.value() == pytest.approx(0.2)
    threshold.observe(torch.full((100,), 0.7))
    assert threshold.value() == pytest.approx(0.7)


def test_the_latest_1024_rewards_count() -> None:
    threshold = RewardThreshold(None, 1.0)
    threshold.observe(torch.tensor([0.9] + 1023 * [0.1]))
    assert threshold.value() == pytest.approx(0.9)
    threshold.observe(torch.tensor([0.1]))
    assert threshold.value() == pytest.approx(0.1)


def test_the_sampler_feeds_the_threshold_after_using_it() -> None:
    pairs = make_pairs(raw_candidates())
    pairs.threshold = RewardThreshold(None, 0.5)
    pairs.threshold.observe(torch.full((4,), 0.9))
    first = draw(pairs)
    assert first.gate.tau == pytest.approx(0.9)
    assert list(pairs.threshold.recent)[4:] == first.reward_unpreferred.tolist()
    assert draw(pairs).gate.tau < 0.9


def test_a_restored_threshold_goes_on_as_before() -> None:
    """The probe has fed the new one already; the saved rewards replace what it saw."""
    saved = RewardThreshold(None, 0.3)
    saved.observe(torch.linspace(0, 1, 50))
    restored = RewardThreshold(None, 0.3)
    restored.observe(torch.full((50,), 0.9))
    restored.load_state_dict(saved.state_dict())
    assert restored.value() == saved.value()
    assert restored.state_dict() == saved.state_dict()


def test_a_threshold_needs_exactly_one_rule_and_rewards() -> None:
    for arguments in ((None, None), (0.5, 0.5)):
        with pytest.raises(ValueError, match="either tau or quantile"):
            RewardThreshold(*arguments)
    with pytest.raises(RuntimeError, match="observed rewards"):
        RewardThreshold(None, 0.5).value()
    fixed = RewardThreshold(0.45, None)
    fixed.observe(torch.rand(10))
    assert fixed.value() == 0.45
