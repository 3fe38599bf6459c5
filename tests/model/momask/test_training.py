"""What the transformers learn from."""

import torch

from model.momask.draws import Draws
from model.momask.training import CorruptionDraws, active_layer, corrupt, token_loss
from tests.model.momask.tiny import CODES, valid_tokens

MASK, PAD = CODES, CODES + 1


def corruption(batch: int, tokens: int, seed: int = 0) -> CorruptionDraws:
    return CorruptionDraws.draw(batch, tokens, CODES, Draws(torch.Generator().manual_seed(seed)))


def test_corrupts_chosen_tokens_only() -> None:
    valid = valid_tokens([6, 10])
    ids = torch.full(valid.shape, 5)
    found = corrupt(ids, valid, MASK, PAD, corruption(2, 10))
    assert not (found.chosen & ~valid).any()
    assert (found.ids[~valid] == PAD).all()
    assert torch.equal(found.ids[valid & ~found.chosen], ids[valid & ~found.chosen])


def test_shares_of_masked_random_and_true_ids() -> None:
    batch, tokens = 400, 49
    valid = torch.ones(batch, tokens, dtype=torch.bool)
    ids = torch.full(valid.shape, 5)
    found = corrupt(ids, valid, MASK, PAD, corruption(batch, tokens))
    chosen = found.ids[found.chosen]
    masked, true = (chosen == MASK).double().mean(), (chosen == 5).double().mean()
    assert abs(masked - 0.9 * 0.88) < 0.02
    assert abs(true - (0.9 * 0.12 + 0.1 / CODES)) < 0.02
    # the mean of cos(pi u / 2) over u in (0, 1) is 2 / pi
    assert abs(found.chosen.double().mean() - 2 / torch.pi) < 0.05


def test_the_loss_is_one_mean_over_all_counted_tokens() -> None:
    logits = torch.randn(2, 3, CODES, generator=torch.Generator().manual_seed(0))
    ids, counted = torch.tensor([[1, 2, 3], [4, 5, -1]]), valid_tokens([3, 1])
    surprise = -logits.log_softmax(-1)
    expected = (surprise[0, 0, 1] + surprise[0, 1, 2] + surprise[0, 2, 3] + surprise[1, 0, 4]) / 4
    torch.testing.assert_close(token_loss(logits, ids, counted).loss, expected)
    assert token_loss(logits, ids, torch.zeros_like(counted)).loss == 0
    assert token_loss(1e3 * torch.eye(CODES)[ids.clamp_min(0)], ids, counted).accuracy == 1


def test_low_layers_are_trained_more_often() -> None:
    layers = active_layer(torch.linspace(0, 1, 1001)[:-1], 6)
    counts = torch.bincount(layers)
    assert counts[0] == 0
    assert len(counts) == 6
    assert (counts[1:].diff() < 0).all()
