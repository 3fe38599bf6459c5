"""Retrieval: ties, directions, and pools of distinct meanings."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.upstream_protocols import batched_metrics, guo_batches
from tmr.retrieval import (
    SMALLEST_POOL,
    metrics_of_ranks,
    retrieval_in_pools,
    retrieval_metrics,
    similarity_matrix,
    tied_ranks,
)


def random_latents(count: int, seed: int, width: int = 16) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_ranks_count_the_strictly_closer_and_average_over_ties() -> None:
    similarities = np.array([[0.5, 0.9, 0.7], [0.2, 0.2, 0.2], [0.1, 0.3, 0.3]])
    assert tied_ranks(similarities).tolist() == [2.0, 1.0, 0.5]


def test_the_best_of_several_correct_items_counts() -> None:
    similarities = np.array([[0.1, 0.9, 0.5]])
    assert tied_ranks(similarities, np.array([[True, False, True]])).tolist() == [1.0]
    assert tied_ranks(similarities, np.array([[True, True, False]])).tolist() == [0.0]


def test_metrics_of_hand_made_ranks() -> None:
    figures = metrics_of_ranks(np.array([0, 1, 2, 9, 20]), "t2m")
    assert figures["t2m/MedR"] == 3
    assert [figures[f"t2m/R{k:02d}"] for k in (1, 2, 3, 5, 10)] == [20, 40, 60, 60, 80]


def test_both_directions_are_told_apart() -> None:
    similarities = np.array([[0.9, 0.8], [0.95, 0.5]])
    figures = retrieval_metrics(similarities)
    assert figures["t2m/R01"] == 50  # text 1 prefers motion 0
    assert figures["m2t/R01"] == 0  # motion 0 prefers text 1, motion 1 text 0
    assert retrieval_metrics(similarities.T)["t2m/R01"] == 0


def test_similarities_are_cosines() -> None:
    texts = random_latents(4, 0)
    matrix = similarity_matrix(texts, 3 * texts)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-6)
    assert np.abs(matrix).max() <= 1 + 1e-6


def test_batches_of_32_hold_every_item_at_most_once() -> None:
    batches = guo_batches(100)
    assert batches.shape == (3, 32)
    assert len(np.unique(batches)) == 96
    perfect = batched_metrics(np.eye(100), batches)
    assert perfect["t2m/R01"] == perfect["m2t/R10"] == 100


@pytest.mark.parametrize("pool_size", [8, 32])
def test_perfect_and_random_latents_score_1_and_chance(pool_size: int) -> None:
    meanings = [f"meaning {i}" for i in range(300)]
    latents = random_latents(300, 0)
    perfect = retrieval_in_pools(latents, latents, meanings, pool_size=pool_size)
    assert (perfect.r_at_1, perfect.r_at_3, perfect.queries) == (1.0, 1.0, 300)
    assert perfect.chance == pytest.approx(1 / pool_size)
    random = retrieval_in_pools(
        latents, random_latents(300, 1), meanings, pool_size=pool_size, draws=10
    )
    assert random.r_at_1 == pytest.approx(1 / pool_size, abs=0.035)
    assert random.r_at_3 == pytest.approx(3 / pool_size, abs=0.06)


def test_a_constant_embedding_finds_nothing() -> None:
    same = torch.ones(64, 4)
    figures = retrieval_in_pools(same, same, [str(i) for i in range(64)])
    assert figures.r_at_3 == 0


def test_pools_hold_distinct_meanings_only() -> None:
    """Every meaning occurs ten times with one latent: a paraphrase in the pool would tie."""
    meanings = [f"meaning {i % 12}" for i in range(120)]
    latents = torch.eye(12).repeat(10, 1)
    figures = retrieval_in_pools(latents, latents, meanings, pool_size=32)
    assert figures.r_at_1 == 1
    assert figures.chance == pytest.approx(1 / 12)  # twelve meanings give pools of twelve
    whole = retrieval_in_pools(latents, latents, meanings, pool_size=None)
    assert whole.r_at_1 == 1
    assert whole.chance == pytest.approx(1 / 111)  # its own and the 110 of other meanings


def test_hard_pools_share_a_family() -> None:
    """The latent tells the family and nothing else: easy among all, chance within a family."""
    families = [f"family {i % 10}" for i in range(200)]
    meanings = [f"meaning {i}" for i in range(200)]
    latents = torch.eye(10).repeat(20, 1)
    texts = latents + 1e-4 * random_latents(200, 3, width=10)
    hard = retrieval_in_pools(texts, latents, meanings, families=families, pool_size=16)
    assert hard.chance == pytest.approx(1 / 16)
    assert hard.r_at_3 == 0  # all motions of the family tie
    other = retrieval_in_pools(texts, latents, meanings, pool_size=SMALLEST_POOL)
    assert other.r_at_1 > 0.4


def test_texts_of_small_families_are_not_asked() -> None:
    families = ["large"] * 20 + ["small"] * 5
    meanings = [str(i) for i in range(25)]
    latents = random_latents(25, 0)
    figures = retrieval_in_pools(latents, latents, meanings, families=families)
    assert figures.queries == 20
    assert figures.chance == pytest.approx(1 / 20)
    with pytest.raises(ValueError, match="distinct meaning"):
        retrieval_in_pools(latents[:7], latents[:7], meanings[:7])


def test_the_seed_decides_the_pools() -> None:
    texts, motions = random_latents(80, 0), random_latents(80, 1)
    meanings = [str(i) for i in range(80)]
    first, second, other = (
        retrieval_in_pools(texts, motions, meanings, draws=1, seed=s) for s in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_figures_have_two_digits_unless_told_otherwise() -> None:
    third = np.eye(3)
    third[1, 1] = third[2, 2] = -1  # one of three finds its own
    assert retrieval_metrics(third)["t2m/R01"] == 33.33
    assert retrieval_metrics(third, digits=None)["t2m/R01"] == pytest.approx(100 / 3, rel=1e-12)
    assert batched_metrics(third, np.arange(3)[None])["t2m/R01"] == 33.33


def test_batches_are_those_of_numpys_seed_0() -> None:
    order = np.arange(70)
    np.random.RandomState(0).shuffle(order)
    assert guo_batches(70).tolist() == order[:64].reshape(2, 32).tolist()


def test_pools_are_of_32_drawn_five_times_unless_told_otherwise() -> None:
    texts, motions = random_latents(80, 0), random_latents(80, 1)
    meanings = [str(i) for i in range(80)]
    usual = retrieval_in_pools(texts, motions, meanings)
    assert usual == retrieval_in_pools(texts, motions, meanings, None, 32, 5, 0, 8)
    assert (usual.queries, usual.chance) == (80, 1 / 32)
    assert 0 < usual.r_at_1 < usual.r_at_2 < usual.r_at_3 < 1
    whole = retrieval_in_pools(texts, motions, meanings, pool_size=None)
    found = metrics_of_ranks(tied_ranks(similarity_matrix(texts, motions)), "t2m")
    shares = [100 * share for share in (whole.r_at_1, whole.r_at_2, whole.r_at_3)]
    assert shares == pytest.approx([found[f"t2m/R{k:02d}"] for k in (1, 2, 3)])
    assert whole.queries == 80
