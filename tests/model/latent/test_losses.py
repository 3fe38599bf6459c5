"""Losses of the motion VAE: padding counts nothing, every motion the same."""

import torch

from data_loaders.skeleton import KIT
from model.distribution import Distribution
from model.latent.losses import VAELossWeights, masked_smooth_l1, vae_losses
from tests.model.latent.tiny import draw
from tests.model.tiny import tiny_stats

LENGTHS = torch.tensor([8, 3])
MASK = torch.arange(8) < LENGTHS[:, None]


def losses(decoded, target, **weights):
    latents = Distribution(draw(2, 2, 6), draw(2, 2, 6, seed=5))
    stats = tiny_stats(KIT)
    return vae_losses(decoded, target, MASK, latents, stats, KIT, VAELossWeights(**weights))


def test_a_perfect_reconstruction_leaves_the_prior_alone() -> None:
    motion = draw(2, 8, KIT.feature_dim)
    found = losses(motion, motion, kl=0.5)
    assert found.features == found.joints == found.positions == 0
    assert found.kl > 0
    assert found.total == 0.5 * found.kl


def test_the_total_is_the_weighted_sum() -> None:
    decoded, target = draw(2, 8, KIT.feature_dim), draw(2, 8, KIT.feature_dim, seed=3)
    found = losses(decoded, target, features=1.0, joints=2.0, positions=4.0, kl=8.0)
    expected = found.features + 2 * found.joints + 4 * found.positions + 8 * found.kl
    torch.testing.assert_close(found.total, expected)


def test_padding_counts_nothing() -> None:
    decoded, target = draw(2, 8, KIT.feature_dim), draw(2, 8, KIT.feature_dim, seed=3)
    other = torch.where(MASK[..., None], decoded, 7.0)
    first, second = losses(decoded, target), losses(other, target)
    torch.testing.assert_close(first.total, second.total)
    torch.testing.assert_close(first.joints, second.joints)


def test_every_motion_counts_the_same_whatever_its_length() -> None:
    target = torch.zeros(2, 8, 1)
    prediction = torch.tensor([2.0, 4.0]).view(2, 1, 1).expand(2, 8, 1)
    # the error of d > 1 is d - 1/2
    assert masked_smooth_l1(prediction, target, MASK) == (1.5 + 3.5) / 2
