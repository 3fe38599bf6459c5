"""Generation: what is masked when, what is kept, and what a given seed draws."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.momask.draws import Draws, draw_categorical, draw_gumbel, keep_top
from model.momask.sampling import (
    TokenSampling,
    generate_base,
    generate_residual,
    masked_counts,
)
from model.momask.transformers import BaseTransformer, ResidualTransformer
from tests.model.momask.tiny import CODES, LAYERS, random_text, tiny_transformer, valid_tokens

OPTIONS = TokenSampling(iterations=5, guidance=2.0)
VALID = valid_tokens([4, 9, 1])


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


class Watch:
    """Records what the base transformer sees in each iteration, without guidance's second half."""

    def __init__(self, model: BaseTransformer) -> None:
        self.seen: list[Tensor] = []
        model.register_forward_hook(lambda _, inputs, __: self.seen.append(inputs[0].chunk(2)[0]))


@pytest.mark.parametrize("gumbel", [False, True])
def test_ids_fill_the_length_and_repeat_with_the_seed(gumbel: bool) -> None:
    model, text = tiny_transformer(BaseTransformer), random_text(3)
    options = replace(OPTIONS, gumbel=gumbel)
    first, again, other = (generate_base(model, text, VALID, options, draws(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first[~VALID] == -1).all()
    assert ((first[VALID] >= 0) & (first[VALID] < CODES)).all()


def test_fewer_tokens_are_masked_each_time() -> None:
    model = tiny_transformer(BaseTransformer)
    watch = Watch(model)
    generate_base(model, random_text(3), VALID, OPTIONS, draws())
    masked = torch.stack([((ids == model.mask_id) & VALID).sum(1) for ids in watch.seen])
    expected = torch.stack(masked_counts(VALID.sum(1), OPTIONS.iterations)).long()
    assert torch.equal(masked, expected)
    assert masked[0].tolist() == [4, 9, 1]
    assert masked[-1].tolist() == [1, 1, 1]
    assert (masked.diff(dim=0) <= 0).all()


def test_a_kept_token_is_never_drawn_again() -> None:
    model = tiny_transformer(BaseTransformer)
    watch = Watch(model)
    final = generate_base(model, random_text(3), VALID, OPTIONS, draws())
    for ids in watch.seen:
        kept = (ids != model.mask_id) & VALID
        assert torch.equal(ids[kept], final[kept])


def test_one_iteration_draws_all_at_once() -> None:
    model = tiny_transformer(BaseTransformer)
    watch = Watch(model)
    generate_base(model, random_text(3), VALID, replace(OPTIONS, iterations=1), draws())
    assert len(watch.seen) == 1
    assert (watch.seen[0][VALID] == model.mask_id).all()


def test_given_ids_stay_and_the_others_are_drawn() -> None:
    model, text = tiny_transformer(BaseTransformer), random_text(3)
    given = torch.full(VALID.shape, 3)
    given[0, 1:3] = -1
    given[1, 4:] = -1
    found = generate_base(model, text, VALID, OPTIONS, draws(), given)
    kept = VALID & (given >= 0)
    assert torch.equal(found[kept], given[kept])
    assert (found[VALID & (given < 0)] >= 0).all()
    nothing = generate_base(model, text, VALID, OPTIONS, draws(), given.clamp_min(0))
    assert torch.equal(nothing[VALID], given.clamp_min(0)[VALID])


def test_guidance_follows_the_caption() -> None:
    """At temperature 0 and one iteration, a scale of 0 does not read the caption."""
    model = tiny_transformer(BaseTransformer)
    options = TokenSampling(iterations=1, temperature=1e-8, gumbel=True)
    texts = random_text(3), -random_text(3)
    blind, seeing = (
        [generate_base(model, t, VALID, replace(options, guidance=s), draws()) for t in texts]
        for s in (0.0, 4.0)
    )
    assert torch.equal(*blind)
    assert not torch.equal(*seeing)


def test_residual_layers_stand_on_the_base_ids() -> None:
    base, model = torch.tensor([[1, 2, 3, -1], [4, 5, 6, 7]]), tiny_transformer(ResidualTransformer)
    valid = base >= 0
    ids = generate_residual(model, base, random_text(2), valid, OPTIONS, draws())
    assert ids.shape == (2, 4, LAYERS)
    assert torch.equal(ids[..., 0], base)
    assert (ids[~valid] == -1).all()
    assert ids.max() < CODES


def test_a_drawn_pad_adds_nothing() -> None:
    """A transformer that always predicts pad leaves the base layer alone."""
    model = tiny_transformer(ResidualTransformer, share_weight=False)
    model.output_proj_bias.data[:, model.pad_id] = 1e4
    base = torch.tensor([[1, 2, 3, 4]])
    options = replace(OPTIONS, residual_guidance=1.0)
    ids = generate_residual(model, base, random_text(1), base >= 0, options, draws())
    assert torch.equal(ids[..., 0], base)
    assert (ids[..., 1:] == -1).all()


def test_both_draws_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -30.0])
    many = logits.expand(20_000, -1)
    for draw in (draw_categorical, draw_gumbel):
        for temperature in (1.0, 2.0):
            shares = torch.bincount(draw(many, temperature, draws()), minlength=4) / len(many)
            expected = (logits / temperature).softmax(dim=0)
            torch.testing.assert_close(shares, expected, rtol=0, atol=0.015)


def test_the_filter_keeps_the_largest() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    kept = keep_top(logits, 0.9)
    assert torch.equal((kept > float("-inf")).sum(1), torch.full((3,), 4))
    assert torch.equal(kept.amax(1), logits.amax(1))
    assert torch.equal(kept[kept > float("-inf")], logits[kept > float("-inf")])


def test_the_published_numbers_of_kept_classes() -> None:
    for classes in (512, 513):
        logits = torch.arange(float(classes))
        assert (keep_top(logits, 0.9) > float("-inf")).sum() == 52
