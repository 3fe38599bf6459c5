"""The preference step: what it compares, what it may change, and which way it goes."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.sampling import SamplerOptions
from model.seam import Generator, Samples
from rewards.tmr import TMRReward
from tests.tmr.tiny import tiny_tmr
from tests.train.fakes import (
    CAPTIONS,
    KEYS,
    FirstFeature,
    ScriptedGenerator,
    Spy,
    make_batch,
)
from train.preference.gate import GateDecision
from train.preference.losses import DenoisingErrors, preferred_weight, sopo_loss
from train.preference.pairs import PreferenceBatch
from train.train_sopo import Options, PreferenceTask, report_probe
from utils.errors import UserError

KIT_FEATURES = 251
ROUNDING = 1e-5  # products with and without gradient may take other kernels


def make_task(policy: Generator | None = None, reward=None, **changes) -> PreferenceTask:
    settings = {"save_dir": "", "model_path": "", "num_candidates": 2, "tau": 1.0, "lr": 1e-3}
    options = Options(**(settings | changes))
    reward = reward or FirstFeature()
    return PreferenceTask(options, policy or Spy.of(), reward, data=None, val_data=None)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disturb(task: PreferenceTask, size: float = 0.02) -> None:
    """Move the policy away from the reference, as training does."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in task.module.parameters():
            parameter += size * torch.randn_like(parameter)


def gradients(task: PreferenceTask, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(task.module.parameters())))


def draw_pairs(task: PreferenceTask, seed: int = 0) -> tuple[PreferenceBatch, Tensor, Tensor]:
    """Pairs, steps and noise in the order in which a step draws them."""
    winners, generator = task.policy.encode(*raw_winners()), rng(seed)
    t = torch.randint(task.policy.levels, (4,), generator=generator)
    condition = task.policy.encode_text(CAPTIONS)
    pairs = task.algorithm.sources[0](winners, KEYS, condition, generator)
    return pairs, t, task.policy.noise(winners, generator)


def raw_winners() -> tuple[Samples]:
    batch = make_batch()
    return (Samples(batch.motion, batch.lengths),)


def pair_loss(
    task: PreferenceTask, pairs: PreferenceBatch, t: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss and margin ``[B]`` of given pairs, steps and noise."""
    winner, loser = task.algorithm.errors(pairs, t, noise)
    weight = preferred_weight(pairs.similarity, 1.0, 2.0)
    result = sopo_loss(winner, loser, weight, 1.0, pairs.gate.use_unpreferred, task.algorithm.scale)
    return result.loss, result.margin


def half_open_task(**changes) -> PreferenceTask:
    """A policy that has moved, and a tau amid the rewards of its first step."""
    task = make_task(**changes)
    disturb(task)
    task.algorithm.threshold.tau = draw_pairs(task)[0].reward_unpreferred.quantile(0.5).item()
    return task


def test_winner_loser_policy_and_reference_share_step_and_noise() -> None:
    task = make_task()
    task.step(make_batch(), 0, rng())
    assert len(task.policy.calls) == len(task.algorithm.reference.calls) == 1
    policy, reference = task.policy.calls[0], task.algorithm.reference.calls[0]
    for name in ("t", "noise", "motion", "lengths"):
        assert torch.equal(policy[name], reference[name]), name
    for name in ("t", "noise", "lengths"):
        winner, loser = policy[name].chunk(2)
        assert torch.equal(winner, loser), name
    winner, loser = policy["motion"].chunk(2)
    assert torch.equal(winner, task.policy.encode(*raw_winners()).x)
    assert (winner - loser).abs().max() > 0.1
    assert policy["t"].chunk(2)[0].unique().numel() > 1, "every pair has a step of its own"
    first, second = policy["noise"][:2]
    assert not torch.equal(first, second), "every pair has a noise of its own"


@pytest.mark.parametrize("method", ["sopo", "sft"])
def test_dropout_and_caption_dropping_are_off(method: str) -> None:
    policy = Spy.of(dropout=0.5, cond_mask_prob=0.5)
    policy.model.train()
    task = make_task(policy, method=method)
    disturb(task)
    losses = [task.step(make_batch(), 0, rng()).loss.item() for _ in range(2)]
    assert losses[0] == losses[1]
    calls = task.policy.calls + task.algorithm.reference.calls
    assert not any(call["training"] for call in calls)
    assert all(call["drop_text"] is None for call in calls)
    assert not any(module.training for module in task.module.modules())


def test_the_loss_is_log_2_while_the_policy_is_the_reference() -> None:
    for tau in (0.0, 0.5, 1.0):
        result = make_task(tau=tau).step(make_batch(), 0, rng())
        assert result.loss.item() == pytest.approx(math.log(2), abs=ROUNDING)
        for name in ("margins", "chosen", "rejected"):
            assert abs(result.metrics[f"rewards/{name}"].item()) < ROUNDING


def test_the_step_is_equation_17() -> None:
    """Every term again, one motion at a time and straight from the networks."""
    task = half_open_task(beta=0.7, preferred_weight_c=1.5)
    found = task.step(make_batch(), 0, rng()).loss
    pairs, t, noise = draw_pairs(task)

    def difference(motions: Samples, i: int) -> Tensor:
        one = slice(i, i + 1)
        inputs = (motions[one], t[one], noise[one], pairs.condition[one])
        return (task.policy.error(*inputs) - task.algorithm.reference.error(*inputs)).double()

    losses = []
    for i in range(4):
        beta_w = 0.7 * (1.5 - pairs.similarity[i].double())
        z = -8 * beta_w * difference(pairs.preferred, i)
        if pairs.reward_unpreferred[i] < task.algorithm.threshold.tau:
            z = z + 8 * 0.7 * difference(pairs.unpreferred, i)
        losses.append(-F.logsigmoid(z))
    assert found.item() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-4)


def test_a_closed_gate_leaves_the_gradient_of_the_preferred_term_alone() -> None:
    task = make_task(tau=0.0)
    disturb(task)
    pairs, t, noise = draw_pairs(task)
    assert not pairs.gate.use_unpreferred.any()
    found = gradients(task, pair_loss(task, pairs, t, noise)[0].mean())

    inputs = (pairs.preferred, t, noise, pairs.condition)
    reference = task.algorithm.reference.error(*inputs).detach()
    winner = DenoisingErrors(task.policy.error(*inputs), reference)
    weight = preferred_weight(pairs.similarity, 1.0, 2.0)
    alone = gradients(task, F.softplus(task.algorithm.scale * weight * winner.difference).mean())
    for a, b in zip(found, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert any(g.abs().max() > 1e-3 for g in found)


def test_a_closed_gate_makes_the_loser_irrelevant_to_the_last_bit() -> None:
    task = make_task(tau=0.0)
    disturb(task)
    pairs, t, noise = draw_pairs(task)
    other = Samples(3 * pairs.unpreferred.x.roll(1, dims=0) + 1, pairs.unpreferred.lengths)
    swapped = replace(pairs, unpreferred=other)
    first, second = (
        gradients(task, pair_loss(task, p, t, noise)[0].mean()) for p in (pairs, swapped)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    opened_pairs = replace(pairs, gate=GateDecision(torch.ones(4, dtype=torch.bool), None))
    opened = gradients(task, pair_loss(task, opened_pairs, t, noise)[0].mean())
    assert any(not torch.equal(a, b) for a, b in zip(first, opened, strict=True))


def test_a_step_along_the_gradient_favours_the_winner() -> None:
    """From the reference, a small step lowers the winner's error relative to the loser's."""
    task = make_task()
    pairs, t, noise = draw_pairs(task)
    assert pairs.gate.use_unpreferred.all()
    loss, margin = pair_loss(task, pairs, t, noise)
    assert margin.abs().max() < ROUNDING
    slope = gradients(task, loss.mean())
    with torch.no_grad():
        for parameter, gradient in zip(task.module.parameters(), slope, strict=True):
            parameter -= 1e-3 * gradient
        winner, loser = task.algorithm.errors(pairs, t, noise)
        after, margin = pair_loss(task, pairs, t, noise)
    assert winner.difference.mean() < loser.difference.mean()
    assert margin.mean() > 0
    assert after.mean() < loss.mean()


def test_training_changes_the_policy_and_nothing_else() -> None:
    reward = TMRReward(tiny_tmr(features=KIT_FEATURES))
    task = make_task(reward=reward, log_interval=1)
    frozen = (task.algorithm.reference.model, reward.model)
    before = [copy.deepcopy(model.state_dict()) for model in frozen]
    start = copy.deepcopy(task.module.state_dict())
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=1e-3)
    for step in range(4):
        result = task.step(make_batch(step), step, rng(step))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    for model, state in zip(frozen, before, strict=True):
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    now = task.module.state_dict()
    moved = [k for k in start if not torch.equal(start[k], now[k])]
    assert len(moved) == len(list(task.module.parameters()))


def test_repeated_steps_on_one_batch_widen_the_margin() -> None:
    task = make_task()
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=3e-3)
    losses = []
    for step in range(15):
        result = task.step(make_batch(), step, rng())
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert result.metrics["rewards/margins"] > 0
    assert result.metrics["rewards/accuracies"] > 0.5


def test_the_margin_scale_replaces_the_number_of_steps() -> None:
    default, scaled = make_task(), make_task(margin_scale=2.0)
    assert make_task(margin_scale=0.0).algorithm.scale == 0
    assert (default.algorithm.scale, scaled.algorithm.scale) == (8.0, 2.0)
    for task in (default, scaled):
        disturb(task)
    margins = [t.step(make_batch(), 0, rng()).metrics["rewards/margins"] for t in (default, scaled)]
    assert margins[0].item() == pytest.approx(4 * margins[1].item(), rel=1e-4)


def test_another_base_is_refused_on_resuming() -> None:
    first, same, other = make_task(), make_task(), make_task()
    disturb(first)  # what was trained since does not matter
    same.load_state_dict(first.state_dict())
    with torch.no_grad():
        next(other.module.parameters()).flatten()[0] += 1
    other = PreferenceTask(other.options, other.policy, other.reward, None, None)
    with pytest.raises(UserError, match="holds other weights than those"):
        other.load_state_dict(first.state_dict())


def test_the_options_reach_the_candidates() -> None:
    task = make_task(num_candidates=3, candidate_start=0.5, similarity_space="features")
    candidates = task.algorithm.candidates
    assert (candidates.num_candidates, candidates.start) == (3, 0.5)
    assert task.algorithm.sources[0].similarity_space == "features"
    options = Options(candidate_sampler="ddim", candidate_steps=4)
    usual = SamplerOptions("ancestral", None)
    assert options.sampler.of(usual) == SamplerOptions("ddim", 4)
    assert Options().sampler.of(usual) == usual
    assert Options(candidate_steps=0).sampler.of(SamplerOptions("ddim", 50)).steps is None
    assert make_task(num_candidates=None).algorithm.candidates.num_candidates == 4


def test_figures_of_a_step_are_consistent() -> None:
    task = half_open_task(log_interval=1)
    figures = {k: float(v) for k, v in task.step(make_batch(), 0, rng()).metrics.items()}
    pairs, t, _ = draw_pairs(task)
    assert figures["gate/tau"] == task.algorithm.threshold.tau
    assert figures["gate/share_below_tau"] == pairs.gate.use_unpreferred.float().mean() == 0.5
    assert figures["rewards/unpreferred_score"] <= figures["rewards/candidate_score"]
    assert 1 <= figures["weights/beta_w"] <= 2
    assert figures["rewards/margins"] == pytest.approx(
        figures["rewards/chosen"] - figures["rewards/rejected"], rel=1e-4, abs=1e-6
    )
    quarters = {q for q in range(4) if f"quarters/grad_norm_q{q}" in figures}
    assert quarters == set((t * 4 // 8).tolist())
    assert all(figures[f"quarters/grad_norm_q{q}"] > 0 for q in quarters)
    assert all(math.isfinite(value) for value in figures.values())


def test_sft_is_the_plain_denoising_error() -> None:
    task = make_task(method="sft")
    disturb(task)
    found = task.step(make_batch(), 0, rng())
    winners, generator = task.policy.encode(*raw_winners()), rng()
    t = torch.randint(8, (4,), generator=generator)
    noise = task.policy.noise(winners, generator)
    expected = task.policy.error(winners, t, noise, task.policy.encode_text(CAPTIONS))
    assert found.loss.item() == expected.mean().item()
    assert not task.algorithm.reference.calls
    assert not task.reward.seen


class FixedBatches(PreferenceTask):
    """Two batches, without a dataset."""

    def batches(self, epoch: int):
        yield from (make_batch(0), make_batch(1))


def test_the_probe_measures_the_worst_of_k_and_feeds_the_threshold() -> None:
    options = Options(
        save_dir="", model_path="", num_candidates=3, tau_quantile=0.5, probe_batches=5
    )
    task = FixedBatches(options, Spy.of(), FirstFeature(), None, None)
    with pytest.raises(RuntimeError, match="observed rewards"):
        task.algorithm.threshold.value()
    rewards = task.probe()
    assert rewards.shape == (8,)
    assert [len(motions) for motions in task.reward.seen] == [12, 12], "three per caption"
    assert task.algorithm.threshold.value() == pytest.approx(rewards.quantile(0.5).item())
    assert torch.equal(task.probe(), rewards), "the probe depends on the seed alone"


def test_the_probe_reports_the_share_below_tau(capsys) -> None:
    rewards = torch.linspace(0, 0.999, 1000)
    report_probe(rewards, tau=0.25)
    text = capsys.readouterr().out
    assert "share below tau = 0.250: 25.0%" in text
    assert "50% 0.500" in text
    assert "warning" not in text


@pytest.mark.parametrize(
    ("tau", "advice"),
    [(0.015, "hardly ever opens"), (0.03, ""), (0.97, ""), (0.985, "hardly ever closes")],
)
def test_the_probe_warns_when_the_gate_is_nearly_constant(capsys, tau: float, advice: str) -> None:
    report_probe(torch.linspace(0, 0.999, 1000, dtype=torch.float64), tau)
    text = capsys.readouterr().out
    assert ("warning" in text) == bool(advice)
    assert advice in text


def test_tau_is_the_option_unless_a_quantile_is_asked_for() -> None:
    assert make_task(tau=0.3).algorithm.threshold.value() == 0.3
    task = make_task(tau=0.3, tau_quantile=0.5)
    task.algorithm.threshold.observe(torch.tensor([0.1, 0.6, 0.7]))
    assert task.algorithm.threshold.value() == pytest.approx(0.6)


def test_validation_scores_raw_motions_and_lower_is_better(monkeypatch) -> None:
    raw = torch.randn(4, 12, KIT_FEATURES, generator=rng(3))
    task = make_task(ScriptedGenerator.of(raw), val_motions=4)
    monkeypatch.setattr("train.tuning.fixed_batches", lambda *_: [make_batch()])
    found = task.validate()
    lengths = make_batch().lengths
    expected = float(FirstFeature().score(Samples(raw, lengths), CAPTIONS).mean())
    assert found["reward"] == pytest.approx(expected, abs=1e-5)
    assert found["score"] == pytest.approx(1 - expected, abs=1e-5)
