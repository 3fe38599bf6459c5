"""TMR's losses against closed forms, and what the contrastive loss may not push apart."""

import math

import pytest
import torch

from model.distribution import Distribution, kl_divergence
from tests.tmr.tiny import FEATURES, tiny_tmr
from tmr.losses import (
    LossWeights,
    false_negatives,
    info_nce,
    similar_sentences,
    tmr_loss,
    tmr_losses,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def test_kl_divergence_is_that_of_gaussians() -> None:
    q, p = (Distribution(draw(4, 3, seed=s), draw(4, 3, seed=s + 1)) for s in (0, 2))
    normals = [torch.distributions.Normal(d.mean, (d.logvar / 2).exp()) for d in (q, p)]
    expected = torch.distributions.kl_divergence(*normals).mean()
    torch.testing.assert_close(kl_divergence(q, p), expected)
    assert kl_divergence(q, q).abs() < 1e-12
    assert kl_divergence(q, p) > 0


def test_info_nce_limits() -> None:
    same = torch.ones(8, 4)
    assert info_nce(same, same, 0.1).item() == pytest.approx(math.log(8))
    apart = torch.eye(8)
    assert info_nce(apart, apart, 0.01).item() == pytest.approx(0, abs=1e-6)
    swapped = apart.roll(1, dims=0)
    assert info_nce(apart, swapped, 0.1).item() == pytest.approx(10, rel=1e-3)


def test_info_nce_is_symmetric_and_ignores_the_length_of_latents() -> None:
    texts, motions = draw(6, 5), draw(6, 5, seed=1)
    loss = info_nce(texts, motions, 0.1)
    torch.testing.assert_close(info_nce(motions, texts, 0.1), loss)
    torch.testing.assert_close(info_nce(9 * texts, 0.1 * motions, 0.1), loss)


def test_excluded_false_negatives_get_no_gradient() -> None:
    """Motions lie on the axes; the gradient of a text along an axis is the pull of that motion."""
    motions = torch.eye(4, dtype=torch.float64)[:3]
    exclude = false_negatives(["walk", "walk", "kick"])

    def pulls(exclude: torch.Tensor | None) -> torch.Tensor:
        texts = torch.eye(4, dtype=torch.float64)[:3].clone().requires_grad_()
        info_nce(texts, motions, 0.1, exclude).backward()
        return texts.grad

    free, filtered = pulls(None), pulls(exclude)
    assert free[0, 1] > 0
    assert free[1, 0] > 0
    assert filtered[0, 1] == 0
    assert filtered[1, 0] == 0
    assert filtered[0, 2] > 0


def test_a_batch_of_one_meaning_has_no_contrastive_loss() -> None:
    texts, motions = draw(5, 3).requires_grad_(), draw(5, 3, seed=1)
    loss = info_nce(texts, motions, 0.1, false_negatives(["walk"] * 5))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.all(texts.grad == 0)


def test_false_negatives_are_pairs_of_one_meaning() -> None:
    expected = [[True, False, True], [False, True, False], [True, False, True]]
    assert false_negatives(["a", "b", "a"]).tolist() == expected


def test_the_sentence_threshold_is_on_the_unit_scale() -> None:
    angle = math.acos(0.6)  # a cosine of 0.6 is 0.8 on the scale (cos + 1) / 2
    near, far = (
        torch.tensor([[1.0, 0.0], [math.cos(a), math.sin(a)]]) for a in (angle - 0.01, angle + 0.01)
    )
    assert similar_sentences(near, 0.8)[0, 1]
    assert not similar_sentences(far, 0.8)[0, 1]


@pytest.fixture
def batch():
    """Raw motions of 2, 5 and 7 frames in 7."""
    lengths = torch.tensor([2, 5, 7])
    return draw(3, 7, FEATURES).float(), lengths, ["walk", "walk back", "kick"]


def test_the_total_is_the_weighted_sum_and_every_part_learns(batch) -> None:
    tmr, weights = tiny_tmr(), LossWeights(1.0, 0.2, 0.3, 0.4, temperature=0.1)
    losses = tmr_loss(tmr, *batch, None, weights, torch.Generator().manual_seed(0))
    expected = losses.recons + 0.2 * losses.latent + 0.3 * losses.kl + 0.4 * losses.contrastive
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    idle = [n for n, p in tmr.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not idle


def test_losses_do_not_read_the_padding(batch) -> None:
    motions, lengths, captions = batch
    clean = tmr_loss(tiny_tmr(), *batch, None, LossWeights(), torch.Generator().manual_seed(0))
    dirty = motions.masked_fill(torch.arange(7)[None, :, None] >= lengths[:, None, None], 99.0)
    again = tmr_loss(
        tiny_tmr(),
        dirty,
        lengths,
        captions,
        None,
        LossWeights(),
        torch.Generator().manual_seed(0),
    )
    assert torch.equal(clean.total, again.total)


def test_text_and_motion_latents_have_noise_of_their_own(batch) -> None:
    """Equal distributions with the same noise have no latent loss, with different noise they do."""
    tmr = tiny_tmr()
    target, mask = tmr.normalize(*batch[:2])
    same = Distribution(draw(3, 16).float(), torch.zeros(3, 16))
    one, other = draw(3, 16, seed=1).float(), draw(3, 16, seed=2).float()
    equal = tmr_losses(tmr, same, same, target, mask, (one, one), None, LossWeights())
    apart = tmr_losses(tmr, same, same, target, mask, (one, other), None, LossWeights())
    assert equal.latent == 0
    assert apart.latent > 0
    drawn = tmr_loss(tmr, *batch, None, LossWeights(), torch.Generator().manual_seed(0))
    other_draw = tmr_loss(tmr, *batch, None, LossWeights(), torch.Generator().manual_seed(1))
    assert drawn.latent != other_draw.latent
    assert drawn.kl == other_draw.kl


def test_the_weights_are_the_published_ones() -> None:
    assert LossWeights() == LossWeights(1.0, 1e-5, 1e-5, 0.1, temperature=0.1)


def test_every_term_is_that_of_the_paper(batch) -> None:
    """Both latents decoded, four divergences; the text's noise is drawn before the motion's."""
    tmr, (motions, lengths, captions) = tiny_tmr(), batch
    target, mask = tmr.normalize(motions, lengths)
    texts, moves = (
        Distribution(*model.unbind(1))
        for model in (
            tmr.text_encoder(*(lambda c: (c.tokens, c.mask))(tmr.words.encode(captions))),
            tmr.motion_encoder(target, mask),
        )
    )
    rng = torch.Generator().manual_seed(0)
    z, w = (
        d.mean + (d.logvar / 2).exp() * torch.randn(3, 16, generator=rng) for d in (texts, moves)
    )
    smooth, standard = torch.nn.functional.smooth_l1_loss, texts.standard()
    losses = tmr_loss(tmr, *batch, None, LossWeights(), torch.Generator().manual_seed(0))
    decoded = [smooth(tmr.motion_decoder(latent, mask), target) for latent in (z, w)]
    pairs = ((texts, moves), (moves, texts), (moves, standard), (texts, standard))
    torch.testing.assert_close(losses.recons, sum(decoded))
    torch.testing.assert_close(losses.kl, sum(kl_divergence(q, p) for q, p in pairs))
    torch.testing.assert_close(losses.latent, smooth(z, w))
    torch.testing.assert_close(losses.contrastive, info_nce(z, w, 0.1))


def test_sentences_at_the_threshold_are_negatives() -> None:
    assert not similar_sentences(torch.eye(2), 0.5)[0, 1]
