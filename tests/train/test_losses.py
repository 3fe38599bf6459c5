"""What the mathematics of Eq. 17 demands of the loss."""

import math

import pytest
import torch

from train.preference.losses import (
    DenoisingErrors,
    best_candidate,
    preferred_similarity,
    preferred_weight,
    sopo_loss,
    worst_candidate,
)


def random_errors(rng: torch.Generator, size: int = 16) -> DenoisingErrors:
    policy = torch.rand(size, generator=rng, dtype=torch.float64, requires_grad=True)
    return DenoisingErrors(policy, torch.rand(size, generator=rng, dtype=torch.float64))


def literal_eq_17(winner, loser, rewards, tau, similarity, beta, c, scale) -> float:
    """Eq. 17 written out, one pair after the other, in Python floats."""
    total = 0.0
    for i in range(len(rewards)):
        beta_w = beta * (c - similarity[i])
        z = beta_w * (winner.policy[i].item() - winner.reference[i].item())
        if rewards[i] < tau:
            z -= beta * (loser.policy[i].item() - loser.reference[i].item())
        total += -math.log(1 / (1 + math.exp(scale * z)))
    return total / len(rewards)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_literal_transcription(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    winner, loser = random_errors(rng), random_errors(rng)
    rewards, similarity = (torch.rand(16, generator=rng, dtype=torch.float64) for _ in range(2))
    tau, beta, c, scale = 0.45, 0.7, 2.0, 9.0
    weight = preferred_weight(similarity, beta, c)
    loss = sopo_loss(winner, loser, weight, beta, rewards < tau, scale).loss.mean()
    expected = literal_eq_17(
        winner, loser, rewards.tolist(), tau, similarity.tolist(), beta, c, scale
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_equal_weights_and_an_open_gate_give_diffusion_dpo(rng) -> None:
    """-log sigmoid(-T beta (L_w - L_l)) of Wallace et al. (2024), in Python floats."""
    winner, loser = random_errors(rng), random_errors(rng)
    beta, scale = 0.3, 20.0
    weight = torch.full((16,), beta, dtype=torch.float64)
    found = sopo_loss(winner, loser, weight, beta, torch.ones(16, dtype=bool), scale).loss
    for i, value in enumerate(found.tolist()):
        w = winner.policy[i].item() - winner.reference[i].item()
        other = loser.policy[i].item() - loser.reference[i].item()
        sigmoid = 1 / (1 + math.exp(scale * beta * (w - other)))
        assert value == pytest.approx(-math.log(sigmoid), rel=1e-12)


def test_policy_equal_to_reference_gives_log_2_and_no_margin(rng) -> None:
    error = torch.rand(8, generator=rng)
    same = DenoisingErrors(error, error.clone())
    result = sopo_loss(same, same, torch.full((8,), 1.5), 1.0, torch.ones(8, dtype=bool), 50.0)
    torch.testing.assert_close(result.loss, torch.full((8,), math.log(2)))
    assert torch.all(result.margin == 0)


def test_gradient_lowers_the_winner_s_error_and_raises_the_loser_s(rng) -> None:
    winner, loser = random_errors(rng), random_errors(rng)
    weight = torch.full((16,), 1.2, dtype=torch.float64)
    sopo_loss(winner, loser, weight, 1.0, torch.ones(16, dtype=bool), 5.0).loss.sum().backward()
    assert torch.all(winner.policy.grad > 0)
    assert torch.all(loser.policy.grad < 0)


def test_a_closed_gate_leaves_no_gradient_and_no_value(rng) -> None:
    winner, loser, other = (random_errors(rng) for _ in range(3))
    weight = torch.full((16,), 1.2, dtype=torch.float64)
    gate = torch.arange(16) % 2 == 0
    result = sopo_loss(winner, loser, weight, 1.0, gate, 5.0)
    result.loss.sum().backward()
    assert torch.all(loser.policy.grad[~gate] == 0)
    assert torch.all(loser.policy.grad[gate] != 0)
    elsewhere = sopo_loss(winner, other, weight, 1.0, gate, 5.0)
    torch.testing.assert_close(result.loss[~gate], elsewhere.loss[~gate], rtol=0, atol=0)


def test_huge_margins_stay_finite() -> None:
    huge = DenoisingErrors(torch.tensor([1e6, -1e6]), torch.zeros(2))
    none = DenoisingErrors(torch.zeros(2), torch.zeros(2))
    gate = torch.zeros(2, dtype=bool)
    loss = sopo_loss(huge, none, torch.ones(2), 1.0, gate, 1000.0).loss
    assert torch.isfinite(loss).all()


def test_weight_falls_as_the_winner_gets_closer_to_the_candidates() -> None:
    similarity = torch.linspace(0, 1, 11)
    weight = preferred_weight(similarity, beta=1.0, c=2.0)
    assert torch.all(weight.diff() < 0)
    assert weight.min() == pytest.approx(1.0)
    assert weight.max() == pytest.approx(2.0)


def test_the_unpreferred_motion_is_the_worst_and_similarity_the_smallest() -> None:
    rewards = torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.3, 0.2]])
    assert worst_candidate(rewards).tolist() == [1, 0]
    assert best_candidate(rewards).tolist() == [0, 1]
    torch.testing.assert_close(preferred_similarity(rewards), torch.tensor([0.2, 0.1]))
