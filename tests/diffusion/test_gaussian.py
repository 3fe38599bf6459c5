"""The forward process, its posterior and the masked error against closed forms."""

import pytest
import torch

from diffusion.gaussian import GaussianDiffusion, masked_mse
from diffusion.schedule import make_schedule

STEPS = 50


@pytest.fixture
def diffusion() -> GaussianDiffusion:
    return GaussianDiffusion(make_schedule("cosine", STEPS))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def test_the_forward_process_goes_from_motion_to_noise(diffusion) -> None:
    x0, noise = draw(2, 5, 3), draw(2, 5, 3, seed=1)
    ends = torch.tensor([0, STEPS - 1])
    x_t = diffusion.q_sample(x0, ends, noise)
    assert (x_t[0] - x0[0]).abs().max() < 0.15
    assert (x_t[1] - noise[1]).abs().max() < 0.01


def test_the_forward_process_keeps_unit_variance(diffusion) -> None:
    t = torch.arange(STEPS)
    signal, noise = (diffusion.coefficient(n, t, draw(STEPS, 1)) for n in ("signal", "noise"))
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(STEPS, 1, dtype=torch.float64))


def test_each_sample_uses_its_own_step(diffusion) -> None:
    x0, noise = draw(3, 4, 2), draw(3, 4, 2, seed=1)
    t = torch.tensor([3, 40, 11])
    together = diffusion.q_sample(x0, t, noise)
    alone = [diffusion.q_sample(x0[i, None], t[i, None], noise[i, None]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0)


@pytest.mark.parametrize("step", [1, 7, 25, STEPS - 1])
def test_the_posterior_is_bayes_rule(diffusion, step: int) -> None:
    """q(x_{t-1} | x_t, x0) is q(x_t | x_{t-1}) times q(x_{t-1} | x0), so precisions add."""
    x0, x_t = draw(4, 6), draw(4, 6, seed=1)
    beta = diffusion.schedule.betas[step]
    before = diffusion.schedule.alphas_cumprod[step - 1]
    prior_precision, likelihood_precision = 1 / (1 - before), (1 - beta) / beta
    variance = 1 / (prior_precision + likelihood_precision)
    mean = variance * (
        before.sqrt() * x0 * prior_precision + x_t / (1 - beta).sqrt() * likelihood_precision
    )
    found = diffusion.q_posterior(x0, x_t, torch.full((4,), step))
    torch.testing.assert_close(found[0], mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], variance.expand(4, 1), rtol=1e-9, atol=0)
    torch.testing.assert_close(found[2], variance.log().expand(4, 1), rtol=1e-9, atol=1e-9)


def test_noise_and_motion_are_recovered_from_each_other(diffusion) -> None:
    x0, noise = draw(STEPS, 3, 2), draw(STEPS, 3, 2, seed=1)
    t = torch.arange(STEPS)
    x_t = diffusion.q_sample(x0, t, noise)
    torch.testing.assert_close(diffusion.predict_eps(x_t, t, x0), noise, rtol=0, atol=1e-9)
    torch.testing.assert_close(diffusion.predict_x0(x_t, t, noise), x0, rtol=0, atol=1e-9)


def test_large_variance_is_beta_except_at_the_last_step() -> None:
    schedule = make_schedule("cosine", STEPS)
    x, t = draw(STEPS, 2), torch.arange(STEPS)
    large = GaussianDiffusion(schedule, sigma_small=False).p_mean_variance(x, x, t)
    small = GaussianDiffusion(schedule, sigma_small=True).p_mean_variance(x, x, t)
    torch.testing.assert_close(large.variance[1:, 0], schedule.betas[1:])
    assert large.variance[0, 0] == schedule.posterior_variance[1]
    torch.testing.assert_close(large.log_variance.exp(), large.variance, rtol=1e-12, atol=0)
    torch.testing.assert_close(small.log_variance[1:].exp(), small.variance[1:])
    assert torch.all(large.variance[1:] > small.variance[1:])
    assert torch.equal(large.mean, small.mean)


def test_coefficients_have_the_type_of_the_motion(diffusion) -> None:
    single = diffusion.q_sample(draw(1, 2).float(), torch.tensor([9]), draw(1, 2).float())
    double = diffusion.q_sample(draw(1, 2), torch.tensor([9]), draw(1, 2))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    fresh = GaussianDiffusion(diffusion.schedule)  # in which no coefficient is placed yet
    assert torch.equal(double, fresh.q_sample(draw(1, 2), torch.tensor([9]), draw(1, 2)))


def test_masked_error_of_a_hand_made_case() -> None:
    target = torch.zeros(2, 3, 2)
    prediction = torch.tensor([[[1.0, 1.0], [3.0, 1.0], [9.0, 9.0]], [[2.0, 0.0]] * 3])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    torch.testing.assert_close(masked_mse(prediction, target, mask), torch.tensor([3.0, 2.0]))


def test_masked_error_weighs_samples_equally_and_ignores_padding() -> None:
    prediction, target = draw(2, 8, 3), draw(2, 8, 3, seed=1)
    mask = torch.arange(8) < torch.tensor([[8], [3]])
    expected = [(prediction[i, :n] - target[i, :n]).square().mean() for i, n in ((0, 8), (1, 3))]
    prediction[1, 3:] = 1e6
    torch.testing.assert_close(masked_mse(prediction, target, mask), torch.stack(expected))


def test_a_sample_without_a_valid_frame_has_no_error() -> None:
    error = masked_mse(draw(1, 4, 2), draw(1, 4, 2, seed=1), torch.zeros(1, 4, dtype=torch.bool))
    assert error.item() == 0
