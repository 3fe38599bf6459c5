"""The generator: guidance, masked errors, and sampling of the right frames and steps."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data_loaders.skeleton import HUMANML, KIT
from diffusion.gaussian import masked_mse
from diffusion.sampling import SamplerOptions, StartPoint
from model.mdm.batching import guided_denoiser
from model.seam import Samples
from tests.model.tiny import FEATURES, random_condition, random_motion, tiny_generator, tiny_mdm
from utils.errors import UserError
from utils.masks import length_mask

CAPTIONS = ["a person walks", "a man waves his left hand"]
LENGTHS = torch.tensor([12, 8])
GUIDED = [{"arch": "trans_enc"}, {"arch": "trans_dec"}, {"arch": "gru"}]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Watched(torch.nn.Module):
    """Passes calls on to a network and remembers their arguments."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.config = model, model.config
        self.calls: list[tuple] = []

    def forward(self, *args) -> Tensor:
        self.calls.append((*args, self.inner.training))
        return self.inner(*args)


@pytest.fixture(params=GUIDED, ids=lambda layout: layout["arch"])
def network(request):
    return tiny_mdm(**request.param)


@torch.no_grad()
def test_guidance_in_one_doubled_batch_is_two_calls(network) -> None:
    tokens = [2, 4] if network.config.arch == "trans_dec" else [1, 1]
    condition, x = random_condition(tokens), random_motion(2, 6, FEATURES)
    t, mask = torch.tensor([5, 5]), length_mask(torch.tensor([4, 6]), 6)
    conditional, unconditional = network(x, t, condition, mask), network(x, t, None, mask)
    for scale in (2.5, torch.tensor([0.5, 4.0])):
        found = guided_denoiser(network, condition, mask, scale)(x, t)
        weight = torch.as_tensor(scale).view(-1, 1, 1)
        expected = unconditional + weight * (conditional - unconditional)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_guidance_1_is_the_plain_and_0_the_unconditional_model(network) -> None:
    condition, x = random_condition([1, 1]), random_motion(2, 6, FEATURES)
    t, mask = torch.tensor([5, 5]), length_mask(torch.tensor([4, 6]), 6)
    plain = guided_denoiser(network, condition, mask, 1.0)(x, t)
    assert torch.equal(plain, network(x, t, condition, mask))
    free = guided_denoiser(network, condition, mask, 0.0)(x, t)
    torch.testing.assert_close(free, network(x, t, None, mask), rtol=1e-5, atol=1e-6)


def test_guidance_is_off_for_models_that_never_dropped_captions() -> None:
    generator = tiny_generator(KIT, cond_mask_prob=0.0)
    condition = generator.encode_text(CAPTIONS)
    guided, plain = (
        replace(generator, guidance=g).draw(condition, LENGTHS, seeded()) for g in (5.0, 1.0)
    )
    assert torch.equal(guided, plain)


def test_guidance_doubles_the_batch_of_one_call_per_step() -> None:
    generator = tiny_generator(KIT)
    watched = Watched(generator.model)
    generator.with_model(watched).draw(generator.encode_text(CAPTIONS), LENGTHS)
    assert [len(call[0]) for call in watched.calls] == [4] * 8


def test_denoising_error_is_the_error_of_the_prediction_over_valid_frames() -> None:
    generator = tiny_generator(KIT)
    motion = random_motion(2, 12, KIT.feature_dim)
    noise, t = random_motion(2, 12, KIT.feature_dim, seed=9), torch.tensor([1, 6])
    condition, mask = generator.encode_text(CAPTIONS), length_mask(LENGTHS, 12)
    motion = motion * mask.unsqueeze(-1)
    found = generator.error(Samples(motion, LENGTHS), t, noise, condition)
    x_t = generator.diffusion.q_sample(motion, t, noise)
    expected = masked_mse(generator.model(x_t, t, condition, mask), motion, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert found.requires_grad


@torch.no_grad()
def test_denoising_error_ignores_padding() -> None:
    generator = tiny_generator(KIT)
    motion = random_motion(2, 12, KIT.feature_dim)
    noise, t = random_motion(2, 12, KIT.feature_dim, seed=9), torch.tensor([1, 6])
    condition = generator.encode_text(CAPTIONS)
    clean = generator.error(Samples(motion, LENGTHS), t, noise, condition)
    motion[1, 8:], noise[1, 8:] = 1e3, -1e3
    dirty = generator.error(Samples(motion, LENGTHS), t, noise, condition)
    torch.testing.assert_close(dirty, clean, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_motion() -> None:
    generator = tiny_generator(KIT)
    condition = generator.encode_text(CAPTIONS)
    first, second, other = (generator.draw(condition, LENGTHS, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert (first - other).abs().max() > 1e-2
    assert first.shape == (2, 12, KIT.feature_dim)


def test_a_motion_does_not_depend_on_the_length_of_its_neighbour() -> None:
    generator = tiny_generator(KIT)
    condition = generator.encode_text(CAPTIONS)
    noise = random_motion(2, 12, KIT.feature_dim)
    generator.sampler = SamplerOptions("ddim")
    together = generator.draw(condition, LENGTHS, noise=noise)
    alone = generator.draw(condition[1:], LENGTHS[1:], noise=noise[1:, :8])
    torch.testing.assert_close(together[1, :8], alone[0], rtol=1e-4, atol=1e-5)


def test_models_without_frame_masking_sample_the_full_training_length() -> None:
    generator = tiny_generator(KIT, mask_frames=False)
    assert generator.padded_frames == KIT.max_length == 196
    watched = Watched(generator.model)
    motion = generator.with_model(watched).draw(generator.encode_text(CAPTIONS), LENGTHS)
    assert {call[0].shape[1] for call in watched.calls} == {196}
    assert motion.shape[1] == 12
    assert tiny_generator(KIT).padded_frames is None


@pytest.mark.parametrize(
    ("steps", "told"), [(None, [7, 6, 5, 4, 3, 2, 1, 0]), (3, [7, 4, 0]), (1, [7])]
)
def test_fewer_steps_start_at_the_noisiest(steps: int | None, told: list[int]) -> None:
    generator = tiny_generator(KIT)
    watched = Watched(generator.model)
    generator = replace(generator, model=watched, sampler=SamplerOptions("ddim", steps))
    generator.draw(generator.encode_text(CAPTIONS), LENGTHS)
    assert [call[1][0].item() for call in watched.calls] == told


def test_sampling_is_without_dropout_and_leaves_the_mode_alone() -> None:
    generator = tiny_generator(HUMANML, dropout=0.5)
    watched = Watched(generator.model)
    watched.train()
    condition = generator.encode_text(CAPTIONS)
    generator.with_model(watched).draw(condition, LENGTHS, seeded())
    assert not any(call[-1] for call in watched.calls)
    assert watched.training


def test_reduced_precision_returns_float32_close_to_full_precision() -> None:
    generator = tiny_generator(KIT)
    condition = generator.encode_text(CAPTIONS)
    full = generator.draw(condition, LENGTHS, seeded())
    generator.autocast = torch.bfloat16
    reduced = generator.draw(condition, LENGTHS, seeded())
    assert reduced.dtype == torch.float32
    assert 0 < (reduced - full).abs().max() < 0.2


def test_impossible_requests_are_refused() -> None:
    generator = tiny_generator(KIT)
    condition = generator.encode_text(CAPTIONS)
    with pytest.raises(UserError, match="exceed the model's 8"):
        replace(generator, sampler=SamplerOptions("ddim", 9)).draw(condition, LENGTHS)
    with pytest.raises(UserError, match="use one of ancestral, ddim"):
        replace(generator, sampler=SamplerOptions("euler")).draw(condition, LENGTHS)
    with pytest.raises(ValueError, match="noise has shape"):
        generator.draw(condition, LENGTHS, noise=torch.zeros(2, 11, KIT.feature_dim))


@pytest.mark.parametrize(("share", "calls"), [(0.1, 1), (0.5, 4), (0.99, 8)])
def test_sampling_from_a_motion_starts_at_its_noised_form(share: float, calls: int) -> None:
    generator = tiny_generator(KIT)
    motion, noise = (random_motion(2, 12, KIT.feature_dim, seed=seed) for seed in (1, 2))
    seen: list[tuple[Tensor, Tensor]] = []

    def denoiser(*arguments):
        def perfect(x: Tensor, t: Tensor) -> Tensor:
            seen.append((x, t))
            return motion

        return perfect

    generator.denoiser = denoiser
    condition, start = generator.encode_text(CAPTIONS), StartPoint(motion, share)
    generator.sampler = SamplerOptions("ddim")
    found = generator.draw(condition, LENGTHS, noise=noise, start=start)
    torch.testing.assert_close(found, motion, rtol=1e-4, atol=1e-4)
    assert len(seen) == calls
    x, t = seen[0]
    assert t.tolist() == [calls - 1] * 2
    torch.testing.assert_close(x, generator.diffusion.q_sample(motion, t, noise))


def test_raw_motions_come_back_from_the_generator_s_space() -> None:
    generator = tiny_generator(KIT)
    raw = Samples(random_motion(2, 14, KIT.feature_dim), LENGTHS)
    own = generator.encode(raw)
    assert not own.x[~own.mask].any(), "zero beyond the length, as in training"
    torch.testing.assert_close(own.x[own.mask], generator.stats.normalize(raw.x)[raw.mask])
    back = generator.decode(own)
    torch.testing.assert_close(back.x[back.mask], raw.x[raw.mask], rtol=1e-5, atol=1e-5)
    assert not back.x[~back.mask].any()


def test_models_without_frame_masking_get_the_full_length() -> None:
    raw = Samples(random_motion(2, 14, KIT.feature_dim), LENGTHS)
    own = tiny_generator(KIT, mask_frames=False).encode(raw)
    assert own.x.shape[1] == 196


@pytest.mark.parametrize(("spill", "kept"), [(0, [12, 8]), (3, [14, 11])])
def test_samples_are_like_what_they_are_asked_to_be_like(spill: int, kept: list[int]) -> None:
    generator = replace(tiny_generator(KIT), spill=spill)
    like = Samples(torch.zeros(2, 14, KIT.feature_dim), LENGTHS)
    found = generator.sample(generator.encode_text(CAPTIONS), like, seeded())
    assert found.x.shape == like.x.shape
    drawn = generator.draw(generator.encode_text(CAPTIONS), LENGTHS, seeded())
    for row, (length, frames) in enumerate(zip(LENGTHS.tolist(), kept, strict=True)):
        assert torch.equal(found.x[row, :length], drawn[row, :length])
        assert not found.x[row, frames:].any()


def test_the_reference_is_a_frozen_copy() -> None:
    generator = tiny_generator(KIT)
    reference = generator.frozen()
    with torch.no_grad():
        for parameter in generator.model.parameters():
            parameter += 1
    pairs = zip(reference.model.parameters(), generator.model.parameters(), strict=True)
    assert all(not a.requires_grad and not torch.equal(a, b) for a, b in pairs)
