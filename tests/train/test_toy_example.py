"""The two-dimensional example: closed forms of its generator, reward and figures."""

import math

import pytest
import torch

from model.seam import Samples
from tests.train.scripts import run_main
from train.toy_example import (
    BASE_MEAN,
    BASE_VARIANCE,
    FAR_MODE,
    GRID,
    MODE_STD,
    NEAR_MODE,
    OfflineData,
    Options,
    ToyGenerator,
    TwoModes,
    kl_to_reward,
    measure,
    tune,
)
from utils.files import read_json

N = 20_000


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def base() -> ToyGenerator:
    return ToyGenerator.base(0)


def test_base_samples_are_the_paper_s_gaussian(base: ToyGenerator) -> None:
    points = base.points(N, rng())
    error = 4 / math.sqrt(N)
    torch.testing.assert_close(
        points.mean(0), torch.tensor(BASE_MEAN), rtol=0, atol=error * BASE_VARIANCE**0.5
    )
    beta_0 = float(base.diffusion.schedule.betas[0])
    expected = BASE_VARIANCE * (1 - beta_0) * torch.eye(2)
    torch.testing.assert_close(points.T.cov(), expected, rtol=0, atol=1.5 * error * BASE_VARIANCE)


def test_no_denoiser_of_the_base_s_points_is_better(base: ToyGenerator) -> None:
    """Its error is the posterior variance of x0 ~ N(0, 1), 1 - abar_t."""
    points = Samples(torch.randn(N, 1, 2, generator=rng()), torch.ones(N).long())
    noise = torch.randn(N, 1, 2, generator=rng(1))
    condition = base.encode_text([""] * N)
    for step in (0, 8, 15, 19):
        t = torch.full((N,), step)
        error = base.error(points, t, noise, condition).mean().item()
        expected = 1 - float(base.diffusion.schedule.alphas_cumprod[step])
        assert error == pytest.approx(expected, rel=0.03)


def test_the_reward_is_a_density_with_two_equal_modes_of_height_one() -> None:
    reward, cell = TwoModes(), float(GRID[1] - GRID[0]) ** 2
    grid = torch.cartesian_prod(GRID, GRID)
    assert float(reward.density(grid).sum()) * cell == pytest.approx(1, abs=1e-4)
    assert float(reward.density(grid, 0.3).sum()) * cell == pytest.approx(1, abs=1e-3)
    peaks = torch.tensor([NEAR_MODE, FAR_MODE]).unsqueeze(1)
    torch.testing.assert_close(reward.score(Samples(peaks), []), torch.ones(2))
    points = reward.sample(N, rng())
    torch.testing.assert_close(
        points.mean(0), torch.tensor([NEAR_MODE, FAR_MODE]).mean(0), rtol=0, atol=0.1
    )


def test_figures_of_the_reward_density_itself() -> None:
    """Far from each other, p / p_max is 1/2 on average, and two deviations hold 1 - exp(-2)."""
    reward = TwoModes()
    figures = measure(reward.sample(N, rng()), reward)
    assert figures.reward == pytest.approx(0.5, abs=0.01)
    assert figures.far_mass == pytest.approx(0.5 * (1 - math.exp(-2)), abs=0.01)
    assert figures.kl < 0.01


def test_a_missing_mode_costs_at_least_the_logarithm_of_its_share() -> None:
    reward = TwoModes()
    near = torch.tensor(NEAR_MODE) + MODE_STD * torch.randn(N, 2, generator=rng())
    assert kl_to_reward(near, reward) > math.log(2)
    points = reward.sample(N, rng())
    assert kl_to_reward(points + 0.5, reward) > kl_to_reward(points + 0.1, reward) > 0


def test_every_method_leaves_the_base_and_is_repeatable(base: ToyGenerator) -> None:
    data = OfflineData.draw(64, rng())
    options = Options(num_steps=3, batch_size=8, num_candidates=2)
    before = {k: v.clone() for k, v in base.model.state_dict().items()}
    for method in ("offline_dpo", "online_dpo", "combined_dpo", "sopo", "sft"):
        first, second = (tune(method, base, data, options, 5).points(50, rng()) for _ in range(2))
        assert torch.equal(first, second), method
        assert not torch.allclose(first, base.points(50, rng())), method
    assert all(torch.equal(before[k], v) for k, v in base.model.state_dict().items())


def test_plain_denoising_learns_the_preferred_points(base: ToyGenerator) -> None:
    data = OfflineData.draw(512, rng())
    policy = tune("sft", base, data, Options(num_steps=150, batch_size=128, lr=3e-3), 0)
    before, after = (measure(g.points(4000, rng()), data.reward) for g in (base, policy))
    assert after.kl < 0.5 * before.kl
    assert after.far_mass > before.far_mass + 0.1


def test_the_command_writes_figure_and_numbers(tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    arguments = "--num_seeds 2 --num_steps 2 --batch_size 4 --num_samples 50 --offline_points 16"
    run_main("train.toy_example", [*arguments.split(), "--save_dir", str(tmp_path)])
    assert (tmp_path / "toy_example.png").read_bytes().startswith(b"\x89PNG")
    rows = read_json(tmp_path / "toy_example.json")["rows"]
    expected = ["base", "offline_dpo", "online_dpo", "reward density", "sft", "sopo"]
    assert sorted(rows) == expected
    for figures in rows.values():
        for figure in figures.values():
            a, b = figure["values"]
            assert figure["mean"] == pytest.approx((a + b) / 2)
            # Student's t of two values: tan(0.475 pi) times the standard error
            half_width = math.tan(0.475 * math.pi) * abs(a - b) / 2
            assert figure["conf_interval"] == pytest.approx(half_width, rel=1e-6, abs=1e-12)
    assert "| sopo |" in capsys.readouterr().out
