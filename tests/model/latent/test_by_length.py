"""Groups of similar length give what one call gives, whatever their size and the threads."""

import pytest
import torch

from model.latent import by_length
from tests.model.latent.tiny import FEATURES, draw, tiny_vae
from utils.masks import length_mask

LENGTHS = torch.tensor([12, 3, 30, 7, 30, 1])


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("budget", [1, 40, 4096])
@torch.no_grad()
def test_groups_change_no_valid_number(budget: int, threads: int, monkeypatch) -> None:
    monkeypatch.setitem(by_length.FRAMES_PER_CALL, "cpu", budget)
    vae, latent = tiny_vae(), draw(6, 2, 16)
    found, expected = by_length.decode(vae, latent, LENGTHS), vae.decode(latent, LENGTHS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    motion = draw(6, 33, FEATURES)
    whole = vae.distribution(motion, length_mask(LENGTHS, 33))
    parts = by_length.distribution(vae, motion, LENGTHS)
    torch.testing.assert_close(parts.mean, whole.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(parts.logvar, whole.logvar, rtol=0, atol=1e-5)


def test_no_call_computes_much_padding(monkeypatch) -> None:
    monkeypatch.setitem(by_length.FRAMES_PER_CALL, "cpu", 40)
    vae, frames = tiny_vae(), []
    vae.final_layer.register_forward_hook(lambda _m, given, _o: frames.append(given[0].shape[:2]))
    by_length.decode(vae, draw(6, 2, 16), LENGTHS)
    assert sum(rows for rows, _ in frames) == 6
    assert all(rows * length <= 40 for rows, length in frames)
    assert sum(rows * length for rows, length in frames) < 1.5 * int(LENGTHS.sum())
