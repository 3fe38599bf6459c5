"""Work that needs too much memory is done in halves, and gives the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from model.families import load_generator
from model.latent.generator import MLDGenerator
from model.memory import within_memory
from model.momask.generator import MoMaskGenerator
from model.seam import Samples
from tests.model.latent.test_generator import tiny_mld
from tests.model.momask.tiny import write_folders
from tests.model.tiny import random_motion

CAPTIONS = [f"a person walks {n} steps" for n in range(7)]
FRAMES = torch.tensor([12, 8, 36, 24, 16, 36, 8])


class Limited:
    """A method of a class that has memory for `most` rows alone; remembers all attempts."""

    def __init__(self, patch: pytest.MonkeyPatch, kind: type[nn.Module], name: str, most: int):
        self.sizes: list[int] = []
        method: Callable[..., Tensor] = getattr(kind, name)

        def limited(module: nn.Module, x: Tensor, *further: object) -> Tensor:
            self.sizes.append(len(x))
            if len(x) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return method(module, x, *further)

        patch.setattr(kind, name, limited)

    def failures(self, most: int) -> int:
        return sum(size > most for size in self.sizes)


def rollout(generator: MLDGenerator | MoMaskGenerator) -> tuple[Tensor, Tensor]:
    """Samples, and the raw motions that they stand for."""
    rng = torch.Generator().manual_seed(1)
    like = generator.blank(FRAMES)
    samples = generator.sample(generator.encode_text(CAPTIONS), like, rng)
    return samples.x, generator.decode(samples).x


def test_latents_are_denoised_and_decoded_in_halves(monkeypatch) -> None:
    """The same but for rounding, and no further attempt at what has failed once."""
    generator = tiny_mld()
    expected = rollout(generator)
    denoiser = Limited(monkeypatch, type(generator.model), "forward", most=4)  # two, both passes
    decoder = Limited(monkeypatch, type(generator.vae), "decode", most=2)
    for found, whole in zip(rollout(generator), expected, strict=True):
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-3)
    assert denoiser.failures(4) == 3, "of 7, 3 and 4 motions, in the first step alone"
    assert decoder.failures(2) == 3


def test_motions_are_encoded_in_halves(monkeypatch) -> None:
    generator = tiny_mld()
    raw = Samples(random_motion(7, 36, generator.skeleton.feature_dim), FRAMES)
    expected = generator.encode(raw, torch.Generator().manual_seed(2))
    encoder = Limited(monkeypatch, type(generator.vae), "distribution", most=2)
    found = generator.encode(raw, torch.Generator().manual_seed(2))
    assert torch.equal(found.x, expected.x)
    assert encoder.failures(2) == 3


def test_tokens_are_drawn_and_decoded_in_halves(tmp_path, monkeypatch) -> None:
    generator = load_generator(write_folders(tmp_path))
    expected = rollout(generator)
    base = Limited(monkeypatch, type(generator.model), "forward", most=4)
    residual = Limited(monkeypatch, type(generator.parts.residual), "forward", most=4)
    decoder = Limited(monkeypatch, type(generator.parts.tokens.rvq), "decode", most=2)
    ids, motions = rollout(generator)
    assert torch.equal(ids, expected[0])
    torch.testing.assert_close(motions, expected[1], rtol=1e-5, atol=1e-5)
    assert (base.failures(4), residual.failures(4), decoder.failures(2)) == (3, 3, 3)


def test_one_row_other_errors_and_gradients_are_not_tried_again() -> None:
    attempts: list[int] = []

    def failing(message: str) -> Callable[[Tensor], Callable[..., Tensor]]:
        def make(rows: Tensor) -> Callable[..., Tensor]:
            def call(*inputs: Tensor) -> Tensor:
                attempts.append(len(rows))
                raise RuntimeError(message)

            return call

        return make

    with torch.no_grad(), pytest.raises(RuntimeError, match="out of memory"):
        within_memory(failing("out of memory"), torch.arange(4))()
    assert attempts == [4, 2, 1]
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes do not fit"):
        within_memory(failing("shapes do not fit"), torch.arange(4))()
    with pytest.raises(RuntimeError, match="out of memory"):
        within_memory(failing("out of memory"), torch.arange(4))()
    assert attempts == [4, 2, 1, 4, 4]
