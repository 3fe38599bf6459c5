"""The error that plays the denoising error's part in preference training of tokens."""

import math

import torch

from model.momask.likelihood import (
    count_probability,
    exact_weight,
    hide,
    masked_count,
    masked_error,
    shared_mask,
)
from model.momask.transformers import BaseTransformer
from tests.model.momask.tiny import CODES, random_text, tiny_transformer, valid_tokens

VALID = valid_tokens([3, 6])
IDS = torch.randint(CODES, (2, 6), generator=torch.Generator().manual_seed(0)).masked_fill(
    ~VALID, -1
)


def test_the_mask_is_of_the_asked_size_inside_the_length() -> None:
    scores = torch.rand(2, 6, generator=torch.Generator().manual_seed(1))
    for u in (0.0, 0.4, 0.8, 1.0):
        count = masked_count(torch.full((2,), u), VALID.sum(1))
        mask = shared_mask(scores, count, VALID)
        assert not (mask & ~VALID).any()
        assert torch.equal(mask.sum(1), count.long())
    assert masked_count(torch.zeros(2), VALID.sum(1)).tolist() == [3, 6]
    assert masked_count(torch.ones(2), VALID.sum(1)).tolist() == [1, 1]


@torch.no_grad()
def test_the_error_is_the_mean_surprise_of_the_hidden_tokens() -> None:
    model, text = tiny_transformer(BaseTransformer), random_text(2)
    mask = torch.zeros_like(VALID)
    mask[0, 1] = mask[1, 0] = mask[1, 5] = True
    seen = hide(IDS, mask, VALID, model)
    assert (seen[mask] == model.mask_id).all()
    assert (seen[~VALID] == model.pad_id).all()
    surprise = -model(seen, text, VALID).log_softmax(-1)
    expected = [
        surprise[0, 1, IDS[0, 1]],
        (surprise[1, 0, IDS[1, 0]] + surprise[1, 5, IDS[1, 5]]) / 2,
    ]
    found = masked_error(model, IDS, mask, text, VALID)
    torch.testing.assert_close(found, torch.stack(expected))


@torch.no_grad()
def test_hidden_ids_cannot_leak_into_the_logits() -> None:
    model, text = tiny_transformer(BaseTransformer), random_text(2)
    mask = VALID.clone()
    other = (IDS + 1) % CODES
    first, second = (hide(ids, mask, VALID, model) for ids in (IDS, other))
    assert torch.equal(model(first, text, VALID), model(second, text, VALID))


def test_probabilities_of_the_counts_sum_to_one_and_match_draws() -> None:
    for tokens in (1, 2, 7, 49):
        count = torch.arange(1, tokens + 1)
        total = torch.full((tokens,), tokens)
        shares = count_probability(count, total)
        assert math.isclose(shares.sum().item(), 1, abs_tol=1e-9)
        u = (torch.arange(100_000) + 0.5) / 100_000
        drawn = masked_count(u, torch.tensor(tokens)).long()
        found = torch.bincount(drawn, minlength=tokens + 1)[1:] / len(u)
        torch.testing.assert_close(found.double(), shares, rtol=0, atol=2e-4)


def test_the_weight_makes_counts_uniform() -> None:
    """The mean of w over the drawn counts is 1, and w P(m) the same for all m."""
    tokens = torch.full((49,), 49)
    count = torch.arange(1, 50)
    weight = exact_weight(count, tokens)
    torch.testing.assert_close(
        (weight * count_probability(count, tokens)).float(), torch.full((49,), 1 / 49)
    )
    assert math.isclose(weight[0].item(), 1.05, abs_tol=0.01)
    assert math.isclose(weight[-1].item(), 0.22, abs_tol=0.01)
    assert weight.max() < 1.58
