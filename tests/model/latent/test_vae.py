"""The motion VAE: what padding may not change, shapes of both layouts, limits."""

import pytest
import torch

from model.latent.vae import MotionVAE, VAEConfig
from tests.model.latent.tiny import FEATURES, TRUNK, V2, draw, tiny_vae
from utils.errors import UserError

LENGTHS = torch.tensor([9, 4, 1])
LAYOUTS = pytest.mark.parametrize("layout", [{}, V2], ids=["plain", "projected"])


@LAYOUTS
def test_shapes(layout: dict) -> None:
    vae = tiny_vae(**layout)
    latent = vae.encode(draw(3, 9, FEATURES), LENGTHS)
    assert latent.shape == (3, 2, vae.config.latent_dim)
    assert vae.decode(latent, LENGTHS).shape == (3, 9, FEATURES)
    assert vae.decode(latent, LENGTHS, frames=12).shape == (3, 12, FEATURES)


@LAYOUTS
@torch.no_grad()
def test_latents_do_not_depend_on_padding_or_companions(layout: dict) -> None:
    vae, motion = tiny_vae(**layout), draw(3, 9, FEATURES)
    mask = torch.arange(9) < LENGTHS[:, None]
    together = vae.distribution(torch.where(mask[..., None], motion, 50.0), mask)
    for row, length in enumerate(LENGTHS):
        alone = vae.distribution(motion[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone.mean[0], together.mean[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.logvar[0], together.logvar[row], rtol=0, atol=1e-5)


@LAYOUTS
@torch.no_grad()
def test_decoded_motions_do_not_depend_on_padding_and_end_at_their_length(layout: dict) -> None:
    vae = tiny_vae(**layout)
    latent = draw(3, 2, vae.config.latent_dim)
    together = vae.decode(latent, LENGTHS, frames=15)
    for row, length in enumerate(LENGTHS):
        alone = vae.decode(latent[row : row + 1], LENGTHS[row : row + 1])
        assert alone.shape == (1, length, FEATURES)
        torch.testing.assert_close(alone[0], together[row, :length], rtol=0, atol=1e-5)
        assert not together[row, length:].any()


@torch.no_grad()
def test_a_latent_is_a_draw_around_the_mean() -> None:
    vae, motion = tiny_vae(), draw(1, 6, FEATURES).expand(4000, -1, -1)
    lengths = torch.full((4000,), 6)
    found = vae.encode(motion, lengths, torch.Generator().manual_seed(3))
    again = vae.encode(motion, lengths, torch.Generator().manual_seed(3))
    assert torch.equal(found, again)
    latents = vae.distribution(motion[:1], torch.ones(1, 6, dtype=torch.bool))
    spread = (latents.logvar / 2).exp()[0]
    assert ((found.mean(dim=0) - latents.mean[0]) / spread).abs().max() < 0.1
    torch.testing.assert_close(found.std(dim=0), spread, rtol=0.1, atol=0)


def test_a_motion_longer_than_the_positions_is_refused() -> None:
    vae = tiny_vae()
    assert vae.max_frames == 40 - 2 * 2
    lengths = torch.tensor([37])
    with pytest.raises(UserError, match=r"37 frames is longer .* 36 frames"):
        vae.encode(draw(1, 37, FEATURES), lengths)
    with pytest.raises(UserError, match=r"37 frames is longer .* 36 frames"):
        vae.decode(draw(1, 2, 16), lengths)


def test_unequal_widths_need_projections() -> None:
    with pytest.raises(UserError, match="need projections"):
        MotionVAE(VAEConfig(**TRUNK, latent_dim=6))
