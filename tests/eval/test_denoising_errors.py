"""Denoising errors by quarter of the steps: what enters them, and that they can be subtracted."""

import pytest
import torch

from data_loaders.skeleton import KIT
from eval.denoising_errors import QUARTERS, encode, format_table, quarter_errors
from eval.motion_sets import MotionSet
from model.mdm.generator import MDMGenerator
from tests.model.tiny import random_motion, tiny_generator

CAPTIONS = ["a person walks", "a man waves his left hand", "someone sits down"]


def motions(frames: int = 16) -> MotionSet:
    raw = random_motion(3, 16, KIT.feature_dim)
    lengths = torch.tensor([16, 8, 12])
    raw = raw * (torch.arange(16) < lengths[:, None]).unsqueeze(-1)
    padding = torch.zeros(3, frames - 16, KIT.feature_dim)
    return MotionSet(torch.cat([raw, padding], dim=1), lengths, CAPTIONS, ["a", "b", "c"])


class Recorder:
    """A generator whose error is its step, and that remembers what it was given."""

    def __init__(self, inner: MDMGenerator) -> None:
        self.inner, self.calls = inner, []

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def error(self, samples, t, noise, condition) -> torch.Tensor:
        self.calls.append((samples.x, samples.frames, t, noise))
        return t.float()


def test_every_quarter_has_steps_of_its_own() -> None:
    generator = Recorder(tiny_generator(KIT))
    steps = generator.levels
    errors = quarter_errors(generator, motions(), draws=5, batch_size=2, seed=0)
    assert len(generator.calls) == 2 * QUARTERS * 5
    for quarter, error in enumerate(errors):
        assert steps * quarter // QUARTERS <= error < steps * (quarter + 1) // QUARTERS


def test_models_are_compared_on_the_same_steps_and_noise() -> None:
    first, second = Recorder(tiny_generator(KIT)), Recorder(tiny_generator(KIT, 1))
    for generator in (first, second):
        quarter_errors(generator, motions(), draws=2, batch_size=3, seed=4)
    for one, other in zip(first.calls, second.calls, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_errors_do_not_depend_on_padding_and_vanish_against_oneself() -> None:
    generator = tiny_generator(KIT)
    short, long = (quarter_errors(generator, motions(n), 1, 3, seed=2) for n in (16, 40))
    assert short == pytest.approx(long, rel=1e-6)
    lines = format_table({"base": {"clips": short}, "same": {"clips": long}}).splitlines()
    assert lines[-1].split(" | ")[1:] == ["+0.0000", "+0.0000", "+0.0000", "+0.0000 |"]


def test_networks_get_normalised_motions_that_are_zero_beyond_their_length() -> None:
    generator = tiny_generator(KIT)
    encoded = encode(generator, motions())
    assert encoded.x.shape == (3, 16, KIT.feature_dim)
    rows = zip(encoded.x, encoded.frames.tolist(), motions().motions, strict=True)
    for motion, length, raw in rows:
        torch.testing.assert_close(motion[:length], generator.stats.normalize(raw[:length]))
        assert not motion[length:].any()
