"""The RVQ-VAE: what a token is, what moves the codebooks, and what a resume must keep."""

import copy

import pytest
import torch

from model.momask.draws import Draws
from model.momask.rvq import rvq_losses
from tests.model.momask.tiny import CODES, FEATURES, LAYERS, tiny_rvq
from tests.model.tiny import random_motion


def draws(seed: int = 4) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_every_layer_takes_the_nearest_code_of_what_is_left() -> None:
    rvq = tiny_rvq()
    motion = random_motion(2, 16, FEATURES)
    rest, ids = rvq.encode_features(motion).transpose(1, 2), rvq.encode(motion)
    for q, layer in enumerate(rvq.quantizer.layers):
        distances = torch.cdist(rest, layer.codebook.expand(2, -1, -1))
        assert torch.equal(ids[..., q], distances.argmin(-1))
        rest = rest - layer.codebook[ids[..., q]]


@torch.no_grad()
def test_decoding_ids_is_the_forward_pass() -> None:
    rvq = tiny_rvq()
    motion = random_motion(2, 16, FEATURES)
    expected = rvq(motion).motion
    torch.testing.assert_close(rvq.decode(rvq.encode(motion)), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_missing_layers_and_negative_ids_add_nothing() -> None:
    rvq = tiny_rvq()
    ids = rvq.encode(random_motion(1, 16, FEATURES))
    hidden = ids.clone()
    hidden[..., 1:] = -1
    assert torch.equal(rvq.decode(ids[..., :1]), rvq.decode(hidden))
    assert not torch.allclose(rvq.decode(ids), rvq.decode(hidden), atol=1e-3)


@torch.no_grad()
def test_padding_changes_the_last_tokens() -> None:
    """Which is why motions must be padded as they were in training."""
    rvq = tiny_rvq()
    motion = random_motion(1, 32, FEATURES)
    alone = rvq.encode_features(motion)
    padded = rvq.encode_features(torch.nn.functional.pad(motion, (0, 0, 0, 96)))
    assert not torch.allclose(padded[..., 7], alone[..., 7], atol=1e-4)
    torch.testing.assert_close(padded[..., 0], alone[..., 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("down_t", [1, 3])
@torch.no_grad()
def test_tokens_cover_as_many_frames_as_it_says(down_t: int) -> None:
    rvq = tiny_rvq(down_t=down_t)
    ids = rvq.encode(random_motion(2, 24, FEATURES))
    assert ids.shape == (2, 24 // 2**down_t, LAYERS)
    assert rvq.decode(ids).shape == (2, 24, FEATURES)


def test_refuses_a_broken_token() -> None:
    with pytest.raises(ValueError, match="no multiple of 4"):
        tiny_rvq().encode(random_motion(1, 18, FEATURES))


def test_the_encoder_gets_the_gradient_once_per_used_layer() -> None:
    quantizer = tiny_rvq().quantizer
    for used in (1, LAYERS):
        features = random_motion(2, 8, 4).requires_grad_()
        quantizer(features, used_layers=used).quantised.sum().backward()
        assert torch.equal(features.grad, torch.full_like(features, float(used)))


def test_codes_follow_the_rows_that_choose_them() -> None:
    """With one cluster per code, the codes end at the clusters' means."""
    rvq = tiny_rvq(num_quantizers=1, mu=0.5)
    quantizer, rng = rvq.quantizer, torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(8, CODES, generator=rng)
    for layer in quantizer.layers:
        layer.codebook.zero_()
    for _ in range(20):
        noise = 0.1 * torch.randn(8, CODES, 4, generator=rng)
        rows = (centres.unsqueeze(-1) + noise).transpose(1, 2).reshape(1, 8, -1)
        quantizer(rows, draws())
    distances = torch.cdist(centres.T, quantizer.layers[0].codebook)
    assert distances.amin(dim=1).max() < 0.3
    assert distances.argmin(dim=1).unique().numel() == CODES


def test_fewer_rows_than_codes_start_a_codebook() -> None:
    rvq = tiny_rvq()
    for layer in rvq.quantizer.layers:
        layer.codebook.zero_()
    features = random_motion(1, 8, 5)
    rvq.quantizer(features, draws())
    codebook = rvq.quantizer.layers[0].codebook
    distances = torch.cdist(codebook, features[0].T)
    assert distances.amin(dim=1).max() < 0.05
    assert codebook.unique(dim=0).shape == codebook.shape


def test_a_resumed_training_goes_on_as_if_unbroken() -> None:
    rvq = tiny_rvq(mu=0.9, quantize_dropout_prob=0.5)
    batches = [random_motion(4, 16, FEATURES, seed=i) for i in range(4)]
    for i, batch in enumerate(batches[:2]):
        rvq(batch, draws(i))
    state, averages = copy.deepcopy(rvq.state_dict()), rvq.quantizer.averages()
    resumed = tiny_rvq(mu=0.9, quantize_dropout_prob=0.5)
    resumed.load_state_dict(state)
    resumed.quantizer.load_averages(averages)
    forgetful = tiny_rvq(mu=0.9, quantize_dropout_prob=0.5)
    forgetful.load_state_dict(state)
    for i, batch in enumerate(batches[2:]):
        for model in (rvq, resumed, forgetful):
            model(batch, draws(10 + i))
    expected = rvq.state_dict()["quantizer.layers.0.codebook"]
    assert torch.equal(resumed.state_dict()["quantizer.layers.0.codebook"], expected)
    assert not torch.equal(forgetful.state_dict()["quantizer.layers.0.codebook"], expected)


def test_loaded_codes_are_kept_when_training_begins() -> None:
    """Upstream would replace them by rows of the first batch."""
    rvq = tiny_rvq(mu=1.0)
    before = rvq.quantizer.layers[0].codebook.clone()
    rvq(random_motion(4, 16, FEATURES), draws())
    assert torch.equal(rvq.quantizer.layers[0].codebook, before)


def test_layers_are_dropped_as_often_as_asked() -> None:
    rvq = tiny_rvq(quantize_dropout_prob=0.5)
    features, source, used = random_motion(1, 8, 4), draws(), []
    for _ in range(200):
        ids = rvq.quantizer(features, source).ids[0, 0]
        used.append(int((ids >= 0).sum()))
        assert (ids[: used[-1]] >= 0).all()
    # half of the batches draw 1..3 layers uniformly, the others use all three
    shares = torch.bincount(torch.tensor(used), minlength=4)[1:] / 200
    torch.testing.assert_close(shares, torch.tensor([1 / 6, 1 / 6, 4 / 6]), rtol=0, atol=0.1)


def test_losses_add_up() -> None:
    rvq = tiny_rvq()
    motion = random_motion(2, 16, FEATURES)
    losses = rvq_losses(rvq(motion), motion, slice(4, 10))
    by_hand = losses.recons + 0.5 * losses.positions + 0.02 * losses.commitment
    torch.testing.assert_close(losses.total, by_hand)
    losses.total.backward()
    assert all(p.grad is not None for p in rvq.parameters())
