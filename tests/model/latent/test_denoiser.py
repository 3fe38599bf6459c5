"""The latent denoiser: what it may depend on, and the consistency student's guidance."""

import pytest
import torch

from model.latent.denoiser import (
    DenoiserConfig,
    LatentDenoiser,
    guidance_embedding,
    timestep_sinusoid,
)
from model.text.condition import Condition
from tests.model.latent.tiny import TRUNK, V2, draw, text_condition, tiny_denoiser
from utils.errors import UserError

STEPS = torch.tensor([0, 5, 9])


@pytest.mark.parametrize("layout", [{}, V2], ids=["plain", "projected"])
@torch.no_grad()
def test_rows_do_not_depend_on_their_companions(layout: dict) -> None:
    model = tiny_denoiser(**layout)
    z, text = draw(3, 2, model.config.latent_dim), text_condition(3)
    found = model(z, STEPS, text)
    assert found.shape == z.shape
    for row in range(3):
        part = slice(row, row + 1)
        alone = model(z[part], STEPS[part], text[part])
        torch.testing.assert_close(alone, found[part], rtol=0, atol=1e-5)
    assert (model(z, STEPS.flip(0), text) - found).abs().max() > 1e-4
    assert (model(z, STEPS, text_condition(3, seed=9)) - found).abs().max() > 1e-4


@torch.no_grad()
def test_padding_of_the_captions_is_not_read() -> None:
    model, z = tiny_denoiser(), draw(2, 2, 16)
    tokens, mask = text_condition(2, tokens=4).tokens, torch.ones(2, 4, dtype=torch.bool)
    mask[1, 2:] = False
    found = model(z, STEPS[:2], Condition(tokens, mask))
    other = torch.where(mask[..., None], tokens, 30.0)
    torch.testing.assert_close(model(z, STEPS[:2], Condition(other, mask)), found)
    alone = Condition(tokens[1:, :2], mask[1:, :2])
    torch.testing.assert_close(model(z[1:], STEPS[1:2], alone), found[1:], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_student_reads_the_guidance_scale() -> None:
    model, z, text = tiny_denoiser(guidance_dim=8), draw(3, 2, 16), text_condition(3)
    low, high = (model(z, STEPS, text, torch.full((3,), scale)) for scale in (1.0, 7.5))
    assert (low - high).abs().max() > 1e-5
    keys = set(model.state_dict()) - set(tiny_denoiser().state_dict())
    assert keys == {"time_embedding.cond_proj.weight"}


@torch.no_grad()
def test_the_relu_before_the_text_hides_negative_features() -> None:
    text = text_condition(1)
    positive = Condition(text.tokens.clamp(min=0), text.mask)
    z = draw(1, 2, 16)
    for relu in (True, False):
        model = tiny_denoiser(text_relu=relu)
        same = torch.equal(model(z, STEPS[:1], text), model(z, STEPS[:1], positive))
        assert same == relu


def test_embeddings_follow_their_formulas() -> None:
    t = torch.tensor([3.0])
    expected = [torch.cos(t), torch.cos(t / 100), torch.sin(t), torch.sin(t / 100)]
    torch.testing.assert_close(timestep_sinusoid(t, 4), torch.stack(expected, dim=1))
    w = 1000 * torch.tensor([0.002])
    expected = [torch.sin(w), torch.sin(w / 1e4), torch.cos(w), torch.cos(w / 1e4)]
    found = guidance_embedding(torch.tensor([1.002]), 4)
    torch.testing.assert_close(found, torch.stack(expected, dim=1), rtol=0, atol=1e-3)
    assert timestep_sinusoid(t, 5).shape == (1, 5)


def test_unequal_widths_need_projections() -> None:
    with pytest.raises(UserError, match="need projections"):
        LatentDenoiser(DenoiserConfig(**TRUNK, latent_dim=6))
    with pytest.raises(UserError, match="needs a projection"):
        tiny_denoiser(text_projected=False)
