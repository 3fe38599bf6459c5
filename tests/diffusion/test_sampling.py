"""Which sampler runs, with which steps, and from where."""

from functools import partial

import pytest
import torch

from diffusion.samplers import noise_from, sample_ancestral, sample_ddim, sample_dpm, sample_lcm
from diffusion.sampling import SAMPLERS, SamplerChoice, SamplerOptions, StartPoint
from diffusion.schedule import make_schedule, select_by_snr, select_timesteps
from tests.diffusion.test_samplers import draw, make_diffusion, shrink
from utils.errors import UserError

FUNCTIONS = {
    "ancestral": sample_ancestral,
    "ddim": sample_ddim,
    "dpm": partial(sample_dpm, eta=0.0),
    "dpm_sde": partial(sample_dpm, eta=1.0),
    "lcm": sample_lcm,
}
SCHEDULE = make_schedule("cosine", 50)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("start", [None, 4])
def test_the_named_sampler_runs(name: str, start: int | None) -> None:
    x, diffusion = draw(2, 4, 3), make_diffusion()

    def noise():
        return noise_from(torch.Generator().manual_seed(1), x)

    found = SamplerOptions(name).run(shrink, diffusion, x, noise(), start)
    expected = FUNCTIONS[name](shrink, diffusion, x, noise(), start=start)
    assert torch.equal(found, expected)


def test_ddim_takes_its_eta() -> None:
    x, diffusion = draw(2, 4, 3), make_diffusion()
    noise = noise_from(torch.Generator().manual_seed(1), x)
    found = SamplerOptions("ddim", eta=0.5).run(shrink, diffusion, x, noise)
    noise = noise_from(torch.Generator().manual_seed(1), x)
    assert torch.equal(found, sample_ddim(shrink, diffusion, x, noise, eta=0.5))


def test_an_unknown_sampler_is_refused() -> None:
    x = draw(1, 2, 2)
    with pytest.raises(UserError, match="sampler euler is unknown; use one of ancestral"):
        SamplerOptions("euler").run(shrink, make_diffusion(), x, noise_from(None, x))


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm"])
def test_all_steps_are_executed_unless_told_otherwise(name: str) -> None:
    for steps in (None, 50):
        assert SamplerOptions(name, steps).kept_steps(SCHEDULE) == list(range(50))
    assert SamplerOptions(name, 1).kept_steps(SCHEDULE) == [49]
    assert SamplerOptions(name, 2).kept_steps(SCHEDULE) == [0, 49]
    with pytest.raises(UserError, match="51 sampling steps exceed the model's 50"):
        SamplerOptions(name, 51).kept_steps(SCHEDULE)


def test_the_steps_are_even_in_what_the_sampler_works_in() -> None:
    even, snr = select_timesteps(50, "7"), select_by_snr(SCHEDULE, 7)
    assert even != snr
    for name, expected in (("ancestral", even), ("ddim", even), ("dpm", snr), ("dpm_sde", snr)):
        assert SamplerOptions(name, 7).kept_steps(SCHEDULE) == expected


@pytest.mark.parametrize(("share", "first"), [(0.5, 9), (0.3, 5), (0.01, 0), (1.0, 19)])
def test_a_start_is_noised_to_its_share_of_the_steps(share: float, first: int) -> None:
    diffusion, x, noise = make_diffusion(20), draw(2, 4, 3), draw(2, 4, 3, seed=1)
    found, noised = StartPoint(x, share).noised(diffusion, noise)
    assert found == first
    assert torch.equal(noised, diffusion.q_sample(x, torch.tensor([first, first]), noise))


def test_what_is_not_chosen_stays_as_the_model_has_it() -> None:
    usual = SamplerOptions("ddim", 50, eta=0.5)
    assert SamplerChoice().of(usual) == usual
    assert SamplerChoice(steps=7).of(usual) == SamplerOptions("ddim", 7, eta=0.5)
    assert SamplerChoice("dpm").of(usual) == SamplerOptions("dpm", 50, eta=0.5)
    assert SamplerChoice("dpm", 0).of(usual) == SamplerOptions("dpm", None, eta=0.5)
