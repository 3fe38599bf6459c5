"""Samplers: exact limits, agreement with each other, and what they tell the network."""

from functools import partial

import pytest
import torch
from torch import Tensor

from diffusion.gaussian import GaussianDiffusion
from diffusion.samplers import (
    Inpainting,
    ddim_step,
    denoiser_of_noise,
    merge_noise,
    noise_from,
    sample_ancestral,
    sample_ddim,
    sample_dpm,
    sample_lcm,
)
from diffusion.schedule import (
    half_log_snr,
    make_schedule,
    respace,
    select_by_snr,
    select_offset_stride,
)

SAMPLERS = [sample_ancestral, sample_ddim, sample_dpm]


def make_diffusion(steps: int = 20) -> GaussianDiffusion:
    return GaussianDiffusion(make_schedule("cosine", steps))


def draw(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def shrink(x: Tensor, t: Tensor) -> Tensor:
    """A denoiser that depends on the motion and on the step."""
    return 0.5 * x + 0.01 * t.view(-1, 1, 1)


@pytest.mark.parametrize("sample", SAMPLERS)
def test_a_perfect_denoiser_returns_its_motion_exactly(sample) -> None:
    truth = draw(3, 6, 4).float()
    x = draw(3, 6, 4, seed=1).float()
    found = sample(lambda x, t: truth, make_diffusion(), x, noise_from(None, x))
    torch.testing.assert_close(found, truth, rtol=1e-7, atol=1e-7)


def test_ddim_with_eta_1_is_ancestral_sampling() -> None:
    """Both have the posterior's mean and variance, so the same noise gives the same motion."""
    diffusion, x = make_diffusion(), draw(2, 5, 3)
    noises = [draw(2, 5, 3, seed=10 + i) for i in range(20)]
    ancestral = sample_ancestral(shrink, diffusion, x, noises.__getitem__)
    ddim = sample_ddim(shrink, diffusion, x, noises.__getitem__, eta=1.0)
    torch.testing.assert_close(ddim, ancestral, rtol=0, atol=1e-9)


class BestDenoiser:
    """E[x0 | x_t] for x0 ~ N(0, spread^2)."""

    def __init__(self, diffusion: GaussianDiffusion, spread: float) -> None:
        self.signal, self.spread = diffusion.schedule.alphas_cumprod, spread
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        a = self.signal[t].view(-1, 1, 1)
        return a.sqrt() * self.spread**2 / (a * self.spread**2 + 1 - a) * x

    def exact(self, x: Tensor) -> Tensor:
        """What the deterministic flow makes of x at the noisiest step: x / deviation is constant
        along it; then the prediction of the least noisy step."""
        deviation = (self.signal * self.spread**2 + 1 - self.signal).sqrt()
        return self(x * deviation[0] / deviation[-1], torch.zeros(len(x), dtype=torch.long))


@pytest.mark.parametrize("sample", [sample_ancestral, partial(sample_dpm, eta=1.0)])
def test_stochastic_samples_have_the_variance_of_the_data(sample) -> None:
    diffusion, spread = make_diffusion(200), 0.6
    x = draw(20_000, 1, 1)
    rng = torch.Generator().manual_seed(3)
    found = sample(BestDenoiser(diffusion, spread), diffusion, x, noise_from(rng, x))
    assert found.std().item() == pytest.approx(spread, rel=0.03)
    assert abs(found.mean().item()) < 0.02


def few_steps(diffusion: GaussianDiffusion, count: int) -> tuple[GaussianDiffusion, list[int]]:
    kept = select_by_snr(diffusion.schedule, count)
    return GaussianDiffusion(respace(diffusion.schedule, kept)), kept


def test_the_second_order_solver_converges_quadratically_and_ddim_linearly() -> None:
    fine, x = make_diffusion(1000), draw(1, 1, 1)
    denoise = BestDenoiser(fine, 0.6)
    exact = denoise.exact(x)

    def error(sample, count: int) -> float:
        found = sample(denoise, few_steps(fine, count)[0], x, noise_from(None, x))
        return (found - exact).abs().item()

    assert error(sample_ddim, 40) / error(sample_ddim, 80) == pytest.approx(2, rel=0.15)
    assert error(sample_dpm, 40) / error(sample_dpm, 80) == pytest.approx(4, rel=0.3)
    assert error(sample_dpm, 10) < 0.3 * error(sample_ddim, 10)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_second_order_solver_extrapolates_over_steps_of_uneven_length(eta: float) -> None:
    """Predictions that are linear in lambda: D is what they are in the middle of each step."""
    diffusion = GaussianDiffusion(respace(make_schedule("cosine", 50), [0, 3, 11, 20, 42, 49]))
    lambdas = half_log_snr(diffusion.schedule)
    x = draw(2, 3, 4)
    noises = [draw(2, 3, 4, seed=20 + i) for i in range(6)]
    signal, sigma = (2 * lambdas).sigmoid().sqrt(), (-2 * lambdas).sigmoid().sqrt()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        position = diffusion.schedule.timestep_map.tolist().index(int(t[0]))
        return torch.full_like(x, 0.3 + 0.2 * float(lambdas[position]))

    expected = x
    for executed, index in enumerate(range(5, 0, -1)):
        h = lambdas[index - 1] - lambdas[index]
        middle = lambdas[index] + (h / 2 if executed else 0)  # the first step is of first order
        decay = torch.exp(-(1 + eta) * h)
        expected = sigma[index - 1] / sigma[index] * torch.exp(-eta * h) * expected
        expected = expected + signal[index - 1] * (1 - decay) * (0.3 + 0.2 * middle)
        spread = sigma[index - 1] * torch.sqrt(1 - torch.exp(-2 * eta * h))
        expected = expected + spread * noises[executed]
    states: list[Tensor] = []

    def watch(x: Tensor, t: Tensor) -> Tensor:
        states.append(x)
        return denoise(x, t)

    sample_dpm(watch, diffusion, x, noises.__getitem__, eta=eta)
    torch.testing.assert_close(states[-1], expected, rtol=1e-6, atol=1e-6)


def test_the_stochastic_solver_is_ancestral_where_x0_does_not_change() -> None:
    diffusion, x = make_diffusion(), draw(2, 5, 3)
    noises = [draw(2, 5, 3, seed=10 + i) for i in range(20)]
    paths: list[list[Tensor]] = [[], []]
    for path, sample in zip(paths, (sample_ancestral, partial(sample_dpm, eta=1.0)), strict=True):

        def constant(x: Tensor, t: Tensor, path: list[Tensor] = path) -> Tensor:
            path.append(x)
            return torch.full_like(x, 0.3)

        sample(constant, diffusion, x, noises.__getitem__)
    for ancestral, solver in zip(*paths, strict=True):
        torch.testing.assert_close(solver, ancestral, rtol=0, atol=1e-9)


def test_merged_noise_keeps_few_steps_on_the_path_of_all() -> None:
    """With a constant x0 the coarse sampler meets the fine one at every step that it executes."""
    fine, x = make_diffusion(20), draw(2, 5, 3)
    coarse, kept = few_steps(fine, 6)
    noises = [draw(2, 5, 3, seed=10 + i) for i in range(20)]
    seen: dict[int, dict[int, Tensor]] = {0: {}, 1: {}}

    def run(number: int, diffusion: GaussianDiffusion, noise) -> None:
        def constant(x: Tensor, t: Tensor) -> Tensor:
            seen[number][int(t[0])] = x
            return torch.full_like(x, 0.3)

        sample_ancestral(constant, diffusion, x, noise)

    run(0, fine, noises.__getitem__)
    run(1, coarse, merge_noise(fine, kept, noises.__getitem__))
    assert sorted(seen[1]) == kept
    for t in kept:
        torch.testing.assert_close(seen[1][t], seen[0][t], rtol=0, atol=1e-9)


def test_merged_noise_is_standard_normal_and_reads_the_noise_in_order() -> None:
    diffusion = make_diffusion(20)
    kept = [0, 3, 4, 11, 19]
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return draw(40_000, seed=step)

    merged = [merge_noise(diffusion, kept, noise)(executed) for executed in range(4)]
    assert asked == list(range(19))
    for z in merged:
        assert z.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("sample", [sample_ddim, sample_dpm])
def test_without_eta_a_sampler_is_deterministic_and_draws_no_noise(sample) -> None:
    def forbidden(step: int) -> Tensor:
        raise AssertionError("eta = 0 needs no noise")

    x = draw(2, 4, 3)
    first, second = (sample(shrink, make_diffusion(), x, forbidden) for _ in range(2))
    assert torch.equal(first, second)


def test_a_step_of_ddim_has_no_deviation_unless_it_is_asked_for() -> None:
    x, diffusion = draw(2, 4, 3), make_diffusion()
    assert ddim_step(diffusion, x, x, 5)[1] == 0
    assert ddim_step(diffusion, x, x, 5, eta=1.0)[1] > 0


def test_noise_is_drawn_at_every_step_but_the_last() -> None:
    asked: list[int] = []
    x = draw(1, 2, 2)

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros_like(x)

    sample_ancestral(shrink, make_diffusion(6), x, noise)
    assert asked == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("sample", SAMPLERS)
def test_the_network_is_told_the_original_steps(sample) -> None:
    diffusion = GaussianDiffusion(respace(make_schedule("cosine", 50), [0, 24, 49]))
    told: list[list[int]] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        told.append(t.tolist())
        return x

    x = draw(2, 3, 2)
    sample(denoise, diffusion, x, noise_from(None, x))
    assert told == [[49, 49], [24, 24], [0, 0]]


@pytest.mark.parametrize("sample", SAMPLERS)
def test_inpainted_entries_are_kept(sample) -> None:
    known = draw(2, 6, 3, seed=5)
    mask = torch.arange(6).view(1, 6, 1) < 2
    x = draw(2, 6, 3)
    found = sample(
        shrink,
        make_diffusion(),
        x,
        noise_from(torch.Generator().manual_seed(0), x),
        inpainting=Inpainting(mask, known),
    )
    torch.testing.assert_close(found[:, :2], known[:, :2], rtol=0, atol=1e-12)
    assert (found[:, 2:] - known[:, 2:]).abs().min() > 1e-4


def test_a_start_step_and_the_trajectory() -> None:
    trajectory: list[Tensor] = []
    x = draw(1, 3, 2)
    noise = noise_from(torch.Generator().manual_seed(0), x)
    found = sample_ancestral(shrink, make_diffusion(), x, noise, start=4, trajectory=trajectory)
    assert len(trajectory) == 5
    assert torch.equal(trajectory[-1], found)


def test_clipping_bounds_the_motion() -> None:
    x = draw(1, 3, 2)
    found = sample_ddim(lambda x, t: 100 * x, make_diffusion(), x, noise_from(None, x), clip=True)
    assert found.abs().max() <= 1
    assert found.unique().tolist() == [-1, 1], "both bounds are met, as x0 is large"


def respaced(full: GaussianDiffusion, steps: list[int]) -> GaussianDiffusion:
    return GaussianDiffusion(respace(full.schedule, steps))


@pytest.mark.parametrize("sample", [*SAMPLERS, sample_lcm])
def test_a_network_that_predicts_the_true_noise_returns_the_motion(sample) -> None:
    """It is told original steps, whatever the sampler keeps of them; DDIM ends at abar_0 here."""
    full, truth = GaussianDiffusion(make_schedule("scaled_linear", 1000)), draw(2, 3, 4)
    signal = full.schedule.alphas_cumprod

    def predict_noise(x: Tensor, t: Tensor) -> Tensor:
        a = signal[t].view(-1, 1, 1)
        return (x - a.sqrt() * truth) / (1 - a).sqrt()

    x = draw(2, 3, 4, seed=1)
    kept = respaced(full, select_offset_stride(1000, 50))
    found = sample(denoiser_of_noise(predict_noise, full), kept, x, noise_from(None, x))
    expected = truth
    if sample is sample_ddim:
        first = signal[981].sqrt()
        noise = (x - first * truth) / (1 - signal[981]).sqrt()
        expected = signal[0].sqrt() * truth + (1 - signal[0]).sqrt() * noise
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-2 if sample is sample_lcm else 1e-9)


def test_ddim_of_all_steps_keeps_x_at_the_last_where_it_ends_there() -> None:
    """From step 0 to abar_0 there is nothing to go."""
    diffusion, x = GaussianDiffusion(make_schedule("scaled_linear", 100)), draw(2, 3, 4)
    found = sample_ddim(shrink, diffusion, x, noise_from(None, x), start=0)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)


def test_a_consistency_student_is_noised_between_its_steps_only() -> None:
    """One of the published lists of steps has the same step twice."""
    full, x = GaussianDiffusion(make_schedule("scaled_linear", 1000)), draw(2, 3, 4)
    kept, asked = respaced(full, [699, 399, 299, 299]), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append((int(t[0]), x))
        return torch.full_like(x, float(len(asked)))

    noises = [draw(2, 3, 4, seed=10 + i) for i in range(3)]
    found = sample_lcm(denoise, kept, x, noises.__getitem__)
    assert [t for t, _ in asked] == [699, 399, 299, 299]
    torch.testing.assert_close(found, torch.full_like(x, 4.0), rtol=0, atol=1e-5)
    signal = full.schedule.alphas_cumprod
    for i, t in ((1, 399), (2, 299), (3, 299)):
        expected = signal[t].sqrt() * i + (1 - signal[t]).sqrt() * noises[i - 1]
        torch.testing.assert_close(asked[i][1], expected, rtol=0, atol=1e-5)


def test_a_consistency_student_keeps_x_near_the_data() -> None:
    """c_skip and c_out of step 0 are 1 and 0."""
    diffusion, x = GaussianDiffusion(make_schedule("scaled_linear", 1000)), draw(2, 3, 4)
    found = sample_lcm(shrink, diffusion, x, noise_from(None, x), start=0)
    torch.testing.assert_close(found, x)


def test_the_weights_of_a_consistency_student_are_those_of_ten_times_the_step() -> None:
    x = draw(2, 3, 4)
    diffusion = respaced(GaussianDiffusion(make_schedule("scaled_linear", 1000)), [1])
    found = sample_lcm(lambda x, t: torch.ones_like(x), diffusion, x, noise_from(None, x))
    torch.testing.assert_close(found, (0.25 * x + 10 * 100.25**0.5) / 100.25)


def test_every_sample_and_step_has_noise_of_its_own() -> None:
    x = torch.zeros(3, 2, 2)
    noise = noise_from(torch.Generator().manual_seed(0), x)
    first, second = noise(0), noise(1)
    assert first.shape == x.shape
    assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) == 6
    for sample in (sample_ancestral, partial(sample_ddim, eta=1.0), partial(sample_dpm, eta=1.0)):
        rng = torch.Generator().manual_seed(0)
        found = sample(shrink, make_diffusion(), torch.ones(3, 2, 2), noise_from(rng, x))
        assert len(found.flatten(1).unique(dim=0)) == 3


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_solver_is_exact_where_x0_is_linear_in_the_log_snr(eta: float) -> None:
    """Steps of any length: from the second on, the middle of a step is extrapolated exactly."""
    full = make_diffusion(100)
    kept = [3, 20, 31, 70, 84, 99]
    diffusion = respaced(full, kept)
    snr = half_log_snr(diffusion.schedule)
    assert snr.diff().abs().max() > 2 * snr.diff().abs().min()
    seen: list[Tensor] = []

    def linear(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.full_like(x, 0.3 + 0.2 * float(snr[kept.index(int(t[0]))]))

    noises = [draw(2, 5, 3, seed=10 + i) for i in range(5)]
    sample_dpm(linear, diffusion, draw(2, 5, 3), noises.__getitem__, eta=eta)
    signal, sigma = diffusion.tables["signal"], diffusion.tables["noise"]
    for executed, index in enumerate(range(4, 0, -1), start=1):
        h = snr[index - 1] - snr[index]
        middle = 0.3 + 0.2 * (snr[index] + h / 2)
        expected = sigma[index - 1] / sigma[index] * (-eta * h).exp() * seen[executed]
        expected = expected + signal[index - 1] * (1 - (-(1 + eta) * h).exp()) * middle
        spread = sigma[index - 1] * (1 - (-2 * eta * h).exp()).sqrt()
        expected = expected + spread * noises[executed]
        torch.testing.assert_close(seen[executed + 1], expected, rtol=0, atol=1e-9)
