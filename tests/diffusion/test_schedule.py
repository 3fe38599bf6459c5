"""Schedules: identities between their quantities, and what respacing must keep."""

import math

import pytest
import torch

from diffusion.schedule import (
    SCHEDULES,
    half_log_snr,
    make_schedule,
    respace,
    select_by_snr,
    select_consistency_steps,
    select_offset_stride,
    select_timesteps,
)
from utils.errors import UserError


@pytest.fixture(params=[(name, steps) for name in SCHEDULES for steps in (50, 1000)])
def schedule(request):
    return make_schedule(*request.param)


def test_noise_grows_from_almost_none_to_almost_all(schedule) -> None:
    assert schedule.betas.dtype == torch.float64
    assert torch.all((schedule.betas > 0) & (schedule.betas < 1))
    assert torch.all(schedule.alphas_cumprod.diff() < 0)
    assert schedule.alphas_cumprod[0] > 0.98
    assert schedule.alphas_cumprod[-1] < 5e-3


def test_cosine_signal_follows_its_closed_form() -> None:
    schedule = make_schedule("cosine", 100)

    def signal(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [signal((i + 1) / 100) / signal(0) for i in range(99)]
    found = schedule.alphas_cumprod[:99].tolist()  # the last beta is cut to 0.999
    assert found == pytest.approx(expected, rel=1e-10)
    assert schedule.betas[-1] == 0.999


def test_linear_betas_do_not_depend_on_the_number_of_steps() -> None:
    short, long = make_schedule("linear", 100), make_schedule("linear", 1000)
    assert short.betas.sum().item() == pytest.approx(long.betas.sum().item(), rel=1e-9)


def test_posterior_is_certain_at_the_last_step(schedule) -> None:
    assert schedule.posterior_variance[0] == 0
    assert schedule.posterior_mean_coef1[0].item() == pytest.approx(1.0, abs=1e-12)
    assert schedule.posterior_mean_coef2[0] == 0
    assert torch.isfinite(schedule.posterior_log_variance).all()
    torch.testing.assert_close(
        schedule.posterior_log_variance[1:].exp(), schedule.posterior_variance[1:]
    )


@pytest.mark.parametrize("kept", [[3], [3, 9], [3, 9, 27]])
def test_the_log_of_no_variance_is_that_of_the_next_step(kept: list[int]) -> None:
    short = respace(make_schedule("cosine", 50), kept)
    expected = short.posterior_variance.log()
    assert expected[0] == -math.inf
    if len(kept) > 1:
        expected[0] = expected[1]
    assert torch.equal(short.posterior_log_variance, expected)


def test_respacing_keeps_the_signal_at_the_kept_steps(schedule) -> None:
    kept = select_timesteps(schedule.num_timesteps, "7")
    short = respace(schedule, kept)
    torch.testing.assert_close(
        short.alphas_cumprod, schedule.alphas_cumprod[kept], rtol=1e-8, atol=0
    )
    assert short.timestep_map.tolist() == kept


def test_respacing_twice_tells_the_network_the_original_steps() -> None:
    schedule = make_schedule("cosine", 50)
    once = respace(schedule, list(range(0, 50, 5)))
    twice = respace(once, [1, 4, 9])
    assert twice.timestep_map.tolist() == [5, 20, 45]
    torch.testing.assert_close(twice.alphas_cumprod, schedule.alphas_cumprod[[5, 20, 45]])


def test_keeping_every_step_changes_nothing(schedule) -> None:
    same = respace(schedule, list(range(schedule.num_timesteps)))
    torch.testing.assert_close(same.betas, schedule.betas, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("spacing", "first", "last", "count"),
    [("50", [0, 20, 41, 61, 82], 999, 50), ("ddim50", [0, 20, 40, 60, 80], 980, 50)],
)
def test_selected_steps(spacing: str, first: list[int], last: int, count: int) -> None:
    steps = select_timesteps(1000, spacing)
    assert steps[:5] == first
    assert steps[-1] == last
    assert len(steps) == len(set(steps)) == count


@pytest.mark.parametrize("spacing", ["7", "ddim7"])
def test_all_steps_may_be_selected(spacing: str) -> None:
    assert select_timesteps(7, spacing) == list(range(7))


def test_the_one_step_of_a_stride_is_the_first() -> None:
    assert select_timesteps(7, "ddim1") == [0]


def test_sections_share_the_steps() -> None:
    steps = select_timesteps(31, "2,3,1")  # sections of 11, 10 and 10 steps
    assert steps == [0, 10, 11, 15, 20, 21]  # 4.5 rounds to the even 4


@pytest.mark.parametrize("spacing", ["6", "1,4", "ddim4"])
def test_impossible_selections_are_refused(spacing: str) -> None:
    with pytest.raises(UserError, match="diffusion steps"):
        select_timesteps(5, spacing)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(UserError, match="cosine, linear"):
        make_schedule("sigmoid", 10)


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("count", [2, 5, 10, 50])
def test_steps_of_the_solver_are_distinct_and_hold_both_ends(name: str, count: int) -> None:
    schedule = make_schedule(name, 50)
    kept = select_by_snr(schedule, count)
    assert kept == sorted(set(kept))
    assert (len(kept), kept[0], kept[-1]) == (count, 0, 49)


def test_steps_of_the_solver_are_even_in_the_log_snr() -> None:
    schedule = make_schedule("linear", 1000)
    gaps = -half_log_snr(schedule)[select_by_snr(schedule, 10)].diff()
    assert gaps.max() < 1.1 * gaps.min()


def test_neighbouring_steps_of_the_solver_may_both_be_kept() -> None:
    """Where the log-SNR changes fast, an even spacing in it takes one step after the other."""
    assert select_by_snr(make_schedule("linear", 50), 9)[:3] == [0, 1, 6]


def test_scaled_linear_betas_have_evenly_spaced_roots() -> None:
    schedule = make_schedule("scaled_linear", 1000)
    steps = schedule.betas.sqrt().diff()
    torch.testing.assert_close(steps, steps[:1].expand(999), rtol=1e-9, atol=0)
    assert schedule.betas[[0, -1]].tolist() == pytest.approx([0.00085, 0.012])
    assert schedule.ddim_end == schedule.alphas_cumprod[0]
    assert respace(schedule, [1, 501]).ddim_end == schedule.ddim_end
    assert make_schedule("cosine", 50).ddim_end == 1


def test_steps_with_an_offset() -> None:
    assert select_offset_stride(1000, 50) == list(range(1, 1000, 20))
    assert select_offset_stride(1000, 4) == [1, 251, 501, 751]
    assert select_offset_stride(8, 8) == list(range(8))
    schedule = make_schedule("cosine", 8)
    assert len(respace(schedule, select_offset_stride(8, 8)).betas) == 8


def test_steps_of_a_consistency_student() -> None:
    assert select_consistency_steps(1000, 1, 50) == [999]
    assert select_consistency_steps(1000, 2, 50) == [499, 999]
    assert select_consistency_steps(1000, 4, 50) == [259, 499, 759, 999]
    assert select_consistency_steps(1000, 50, 50) == list(range(19, 1000, 20))
    with pytest.raises(UserError, match="cannot take 11"):
        select_consistency_steps(1000, 11, 10)


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("count", [10, 20, 30, 40])
def test_steps_of_the_solver_leave_their_places_only_for_one_another(name: str, count: int) -> None:
    """Each is the nearest to its place, or follows the one before, or leaves room for the rest."""
    schedule = make_schedule(name, 50)
    snr = half_log_snr(schedule)
    places = torch.linspace(float(snr[0]), float(snr[-1]), count, dtype=snr.dtype)
    nearest = (snr[:, None] - places).abs().argmin(dim=0).tolist()
    kept = select_by_snr(schedule, count)
    assert kept != nearest or len(set(nearest)) == count
    for i, step in enumerate(kept):
        follows = i > 0 and step == kept[i - 1] + 1 and step > nearest[i]
        assert step == nearest[i] or follows or step == 50 - count + i < nearest[i]


@pytest.mark.parametrize("steps", [2, 3, 50])
def test_the_log_variance_of_the_last_step_is_that_of_the_one_before(steps: int) -> None:
    """Its own would be the log of 0."""
    found = make_schedule("cosine", steps).posterior_log_variance
    assert found[0] == found[1]
    assert torch.isfinite(found).all()
