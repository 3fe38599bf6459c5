"""What the safeguards promise: which losers count, how margins are weighted, and by how much."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from diffusion.sampling import StartPoint
from model.seam import Generator
from tests.model.latent.test_generator import tiny_mld
from tests.train.fakes import (
    CAPTIONS,
    FirstFeature,
    ScriptedGenerator,
    make_condition,
    make_winners,
)
from tests.train.test_pairs import K, raw_candidates
from tests.train.test_train_sopo import disturb, draw_pairs, gradients, make_task
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.gate import RewardThreshold
from train.preference.options import PreferenceOptions
from train.preference.pairs import CandidateSampler
from train.preference.safeguards import (
    OMEGAS,
    check_omega,
    noisy_enough,
    omega_t,
)
from train.train_sopo import Options
from utils.errors import UserError


def policy() -> Generator:
    return make_task().policy


def moved_task(**changes):
    task = make_task(**changes)
    disturb(task)
    return task


def loss_gradients(task, t: Tensor) -> list[Tensor]:
    pairs, _, noise = draw_pairs(task)
    return gradients(task, task.algorithm.pair_loss(pairs, t, noise)[0].loss.sum())


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_losers_count_from_that_share_of_the_steps_on(share: float) -> None:
    t = torch.arange(8)
    assert noisy_enough(t, 8, share).tolist() == [step >= 8 * share for step in range(8)]


def test_below_the_share_the_loser_has_no_gradient_and_from_it_on_all_of_it() -> None:
    safe, closed, literal = moved_task(loser_min_t=0.5), moved_task(tau=0.0), moved_task()
    clean, noisy = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6, 7])
    for found, expected in zip(
        loss_gradients(safe, clean), loss_gradients(closed, clean), strict=True
    ):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(
        loss_gradients(safe, noisy), loss_gradients(literal, noisy), strict=True
    ):
        torch.testing.assert_close(found, expected)
    kept, dropped = loss_gradients(literal, clean), loss_gradients(closed, clean)
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(kept, dropped, strict=True))


def test_the_loser_s_weight_scales_its_implicit_reward_alone() -> None:
    pairs, t, noise = draw_pairs(whole := moved_task())
    full = whole.algorithm.pair_loss(pairs, t, noise)[0]
    part = moved_task(loser_weight=0.3).algorithm.pair_loss(pairs, t, noise)[0]
    torch.testing.assert_close(part.rejected, 0.3 * full.rejected)
    torch.testing.assert_close(part.chosen, full.chosen)
    assert full.rejected.abs().min() > 0


def test_omega_is_one_on_average() -> None:
    steps = torch.arange(policy().levels)
    errors = torch.rand(len(steps)) + 0.1
    assert torch.equal(omega_t("constant", steps, policy(), errors), torch.ones(len(steps)))
    assert omega_t("snr", steps, policy(), errors).mean().item() == pytest.approx(1)


def test_omega_is_the_clipped_signal_to_noise_ratio_or_the_reference_s_error() -> None:
    steps = torch.arange(policy().levels)
    errors = torch.rand(len(steps)) + 0.1
    snr = omega_t("snr", steps, policy(), errors)
    ratios = [float(a / (1 - a)) for a in policy().signal(torch.arange(8))]
    for weight, ratio in zip((snr / snr[0]).tolist(), ratios, strict=True):
        assert weight == pytest.approx(min(ratio, 5) / 5, rel=1e-4)
    relative = omega_t("relative", steps, policy(), errors) * errors
    torch.testing.assert_close(relative, errors.mean().expand(len(errors)))


@pytest.mark.parametrize("predicts", ["noise", "tokens"])
def test_the_signal_to_noise_ratio_weighs_errors_of_x0_alone(predicts: str) -> None:
    model = policy()
    check_omega("snr", model)
    model.predicts = predicts
    with pytest.raises(UserError, match=f"turns errors of x0 .* predicts {predicts}"):
        check_omega("snr", model)
    check_omega("relative", model)


@pytest.mark.parametrize("omega", OMEGAS)
def test_omega_multiplies_the_margin(omega: str) -> None:
    pairs, t, noise = draw_pairs(plain := moved_task())
    task = moved_task(omega=omega)
    margin = plain.algorithm.pair_loss(pairs, t, noise)[0].margin
    weight = omega_t(omega, t, policy(), task.algorithm.errors(pairs, t, noise)[0].reference)
    torch.testing.assert_close(
        task.algorithm.pair_loss(pairs, t, noise)[0].margin, weight * margin, rtol=1e-4, atol=1e-6
    )


def test_an_anchored_threshold_keeps_to_the_first_rewards() -> None:
    threshold = RewardThreshold(None, 0.5, anchored=True)
    threshold.observe(torch.linspace(0.4, 0.6, 11))
    for _ in range(5):  # a policy that collapses
        threshold.observe(torch.full((500,), 0.1))
    assert threshold.value() == pytest.approx(0.5)
    with pytest.raises(UserError, match="--tau_anchored needs --tau_quantile"):
        Options(save_dir="x", tau_anchored=True).validate()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_candidates_start_from_their_noised_clip(share: float) -> None:
    given: list[StartPoint] = []

    class Watched(ScriptedGenerator):
        def draw(self, *arguments, start=None, **named):
            given.append(start)
            return super().draw(*arguments, **named)

    winners, scripted = make_winners(), ScriptedGenerator.of(raw_candidates())
    watched = Watched(**{f.name: getattr(scripted, f.name) for f in fields(scripted)})
    watched.motions, watched.asked = scripted.motions, []
    sampler = CandidateSampler(watched, FirstFeature(), K, start=share)
    sampler(winners, CAPTIONS, make_condition(), None)
    assert given[0].share == share
    assert torch.equal(given[0].x, winners.x.repeat_interleave(K, dim=0))


def test_the_algorithm_refuses_a_weight_that_its_policy_has_not() -> None:
    options = PreferenceOptions(omega="snr", num_candidates=2)
    PreferenceAlgorithm(options, policy(), FirstFeature())
    with pytest.raises(UserError, match="--omega snr turns errors of x0"):
        PreferenceAlgorithm(options, tiny_mld(), FirstFeature())
