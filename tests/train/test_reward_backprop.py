"""Reward back-propagation: the gradient is that of the formula, and nothing else is touched."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data_loaders.skeleton import KIT
from diffusion.gaussian import GaussianDiffusion
from diffusion.sampling import SamplerOptions
from diffusion.schedule import make_schedule
from model.latent.assembly import assemble
from model.latent.checkpoints import LatentSettings
from model.latent.generator import MLDGenerator
from model.mdm.generator import MDMGenerator
from rewards.tmr import TMRReward
from tests.model.latent.tiny import tiny_denoiser, tiny_vae
from tests.model.tiny import tiny_generator, tiny_stats
from tests.tmr.tiny import tiny_tmr
from tests.train.fakes import CAPTIONS, FirstFeature, make_batch
from train import data as passes
from train.reward_backprop import rollout as rollouts
from train.reward_backprop.options import BackpropOptions
from train.reward_backprop.rollout import Rollout
from train.reward_backprop.task import RewardBackpropTask
from train.tuning import samples_of

STEPS = 4
# Two steps, the last of which keeps a trace of noise, so that x_0 is not D_0
TWO_STEPS = GaussianDiffusion(replace(make_schedule("cosine", 2), ddim_end=0.9))
NOISE = torch.tensor([[0.3, -1.2], [0.8, 0.1]], dtype=torch.float64)


class GradualFeature(FirstFeature):
    """The same reward, which can be differentiated."""

    score_with_gradient = FirstFeature.score


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(theta: Tensor, x: Tensor, t: int) -> Tensor:
    return torch.tanh(theta[0] * x + theta[1] * (t + 1) + theta[2] * x.flip(1))


def next_x(x: Tensor, x0: Tensor, index: int) -> Tensor:
    """Eq. 12 of DDIM, written out."""
    signal, before = TWO_STEPS.schedule.alphas_cumprod[index], TWO_STEPS.schedule.alphas_cumprod[0]
    before = before if index else 0.9
    eps = (x - signal**0.5 * x0) / (1 - signal) ** 0.5
    return before**0.5 * x0 + (1 - before) ** 0.5 * eps


def reward(x: Tensor) -> Tensor:
    return (x - 0.4).square().sum() + x.prod()


# Each formula with the weights that carry gradient, and those that are constants
def draft_1(live: Tensor, constant: Tensor) -> Tensor:
    x = next_x(NOISE, network(constant, NOISE, 1), 1)
    return reward(next_x(x, network(live, x, 0), 0))


def draft_2(live: Tensor, constant: Tensor) -> Tensor:
    return draft_1(live, live)


def refl_0(live: Tensor, constant: Tensor) -> Tensor:
    return reward(network(live, next_x(NOISE, network(constant, NOISE, 1), 1), 0))


def refl_1(live: Tensor, constant: Tensor) -> Tensor:
    return reward(network(live, NOISE, 1))


@pytest.mark.parametrize(
    ("formula", "generate"),
    [
        (draft_1, lambda toy: toy.draft(NOISE, 1)),
        (draft_2, lambda toy: toy.draft(NOISE, 2)),
        (refl_0, lambda toy: toy.refl(NOISE, 0)),
        (refl_1, lambda toy: toy.refl(NOISE, 1)),
        (refl_1, lambda toy: toy.easytune(NOISE, 1)[0]),
        (refl_0, lambda toy: toy.easytune(toy.easytune(NOISE, 1)[1], 0)[0]),
    ],
)
def test_the_gradient_is_that_of_the_formula(
    formula: Callable[[Tensor, Tensor], Tensor], generate: Callable[[Rollout], Tensor]
) -> None:
    theta = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64)
    differences = [
        (formula(theta + h, theta) - formula(theta - h, theta)) / 2e-6
        for h in 1e-6 * torch.eye(3, dtype=torch.float64)
    ]
    weights = theta.clone().requires_grad_()
    toy = Rollout(lambda x, t: network(weights, x, int(t[0])), TWO_STEPS)
    value = reward(generate(toy))
    assert value.item() == pytest.approx(formula(theta, theta).item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, weights)
    torch.testing.assert_close(gradient, torch.stack(differences), rtol=1e-7, atol=1e-8)


def test_the_next_x_of_easytune_is_a_constant_of_the_weights_before_the_update() -> None:
    weights = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64, requires_grad=True)
    toy = Rollout(lambda x, t: network(weights, x, int(t[0])), TWO_STEPS)
    x0, following = toy.easytune(NOISE, 1)
    assert x0.requires_grad
    assert not following.requires_grad
    torch.testing.assert_close(following, next_x(NOISE, x0.detach(), 1), rtol=1e-12, atol=0)


def tiny_mdm() -> MDMGenerator:
    policy = tiny_generator(KIT, dropout=0.5, cond_mask_prob=0.1)
    return replace(policy, sampler=SamplerOptions("ddim", STEPS))


def tiny_mld() -> MLDGenerator:
    torch.manual_seed(0)
    denoiser = tiny_denoiser(text_dim=256)
    settings = LatentSettings(text_encoder_type="builtin", diffusion_steps=8)
    vae = tiny_vae(num_features=KIT.feature_dim)
    policy = assemble(vae, denoiser, settings, tiny_stats(KIT), "cpu")
    return replace(policy, sampler=SamplerOptions("ddim", STEPS), guidance=2.0)


FAMILIES = pytest.mark.parametrize("policy", [tiny_mdm, tiny_mld])
METHODS = pytest.mark.parametrize("method", ["draft", "refl", "easytune"])


def make_task(policy=None, judge=None, **changes) -> RewardBackpropTask:
    settings = {"method": "draft", "sampling_steps": STEPS, "backprop_steps": 2, "refl_range": 3}
    options = BackpropOptions(save_dir="", **(settings | changes))
    judge = judge or GradualFeature()
    return RewardBackpropTask(options, policy or tiny_mdm(), judge, data=None, val_data=None)


def gradient(task: RewardBackpropTask, step: int = 0, seed: int = 0) -> list[Tensor]:
    loss = task.step(make_batch(), step, rng(seed)).loss
    return list(torch.autograd.grad(loss, list(task.module.parameters()), allow_unused=True))


@FAMILIES
def test_the_rollout_is_the_sampling_of_the_model(policy) -> None:
    task = make_task(policy())
    raw, _ = samples_of(make_batch())
    condition, motions = task.policy.encode_text(CAPTIONS), task.policy.encode(raw, rng())
    rolled = task.generate(condition, motions, 0, rng(3))
    sampled = task.policy.sample(condition, motions, rng(3))
    kept = slice(None) if rolled.dim() == 3 and policy is tiny_mld else motions.mask
    torch.testing.assert_close(rolled[kept], sampled.x[kept], rtol=1e-4, atol=1e-5)


@FAMILIES
@METHODS
def test_the_denoiser_alone_gets_a_gradient(policy, method: str) -> None:
    generator = policy()
    generator.model.train()
    torch.manual_seed(1)
    judge = TMRReward(tiny_tmr(features=KIT.feature_dim))
    task = make_task(generator, judge, method=method, backprop_steps=2 if method != "refl" else 1)
    assert not any(module.training for module in task.module.modules()), "dropout is off"
    loss = task.step(make_batch(), 0, rng()).loss
    loss.backward()
    trained = [p for p in task.module.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(trained) > 5
    frozen = list(judge.model.parameters())
    frozen += list(generator.vae.parameters()) if policy is tiny_mld else []
    assert all(parameter.grad is None for parameter in frozen)


@METHODS
def test_following_the_gradient_raises_the_reward(method: str) -> None:
    task = make_task(method=method, backprop_steps=None if method == "refl" else 1)
    optimizer = torch.optim.Adam(task.module.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = task.step(make_batch(), 0, rng()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01


def test_more_steps_carry_more_gradient() -> None:
    one, two = (gradient(make_task(backprop_steps=k)) for k in (1, 2))
    assert any(not torch.allclose(a, b) for a, b in zip(one, two, strict=True) if a is not None)


@pytest.mark.parametrize(("steps", "recomputed"), [(5, 0), (6, 6)])
def test_activations_of_more_than_five_networks_are_recomputed(steps, recomputed) -> None:
    policy, calls = replace(tiny_mdm(), sampler=SamplerOptions("ddim", 8)), []
    policy.model.register_forward_pre_hook(lambda *_: calls.append(1))
    gradient(make_task(policy, sampling_steps=8, backprop_steps=steps))
    assert len(calls) == 8 + recomputed


def test_recomputed_activations_give_the_same_gradient(monkeypatch) -> None:
    policy = replace(tiny_mdm(), sampler=SamplerOptions("ddim", 8))
    calls = []
    policy.model.register_forward_pre_hook(lambda *_: calls.append(1))
    kept = {"sampling_steps": 8, "backprop_steps": rollouts.KEPT_NETWORKS + 1}
    recomputed = gradient(make_task(policy, **kept))
    assert len(calls) == 8 + kept["backprop_steps"]
    monkeypatch.setattr(rollouts, "KEPT_NETWORKS", 8)
    calls.clear()
    stored = gradient(make_task(policy, **kept))
    assert len(calls) == 8
    for a, b in zip(recomputed, stored, strict=True):
        torch.testing.assert_close(a, b)


@METHODS
def test_weights_that_were_cast_without_gradient_do_not_hide_it(method: str) -> None:
    """Half precision casts a weight once per context, here first for steps that are constants."""
    task = make_task(method=method, backprop_steps=None if method == "refl" else 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradient(task)
    whole = gradient(make_task(method=method, backprop_steps=None if method == "refl" else 1))
    for a, b in zip(found, whole, strict=True):
        assert (a is None) == (b is None)
        assert a is None or bool(a.abs().sum() > 0) == bool(b.abs().sum() > 0)


@METHODS
def test_no_cast_weight_outlives_the_steps_that_are_constants(method: str, monkeypatch) -> None:
    """Some versions of PyTorch would serve them to the steps that carry gradient."""
    events: list[str] = []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: events.append("clear") or clear())
    task = make_task(method=method, backprop_steps=None if method == "refl" else 1)
    task.module.register_forward_pre_hook(
        lambda *_: events.append("gradient" if torch.is_grad_enabled() else "constant")
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        task.step(make_batch(), 0, rng())
    first = events.index("gradient")
    assert "constant" in events[:first]
    assert events[first - 1] == "clear"
    assert "constant" not in events[first:]


def test_refl_draws_one_of_its_last_steps(monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(
        Rollout, "refl", lambda self, x, index: drawn.append(index) or self.predict(x, index)
    )
    task = make_task(method="refl", backprop_steps=None, refl_range=3)
    for seed in range(20):
        task.step(make_batch(), 0, rng(seed))
    assert set(drawn) == {0, 1}


def test_easytune_goes_through_the_last_steps_of_one_batch(monkeypatch) -> None:
    seen = []
    inner = Rollout.easytune

    def easytune(self, x, index):
        x0, following = inner(self, x, index)
        seen.append((index, x, following))
        return x0, following

    monkeypatch.setattr(Rollout, "easytune", easytune)
    task = make_task(method="easytune", backprop_steps=3)
    for step in range(4):
        task.step(make_batch(), step, rng(step))
    assert [index for index, _, _ in seen] == [2, 1, 0, 2]
    assert torch.equal(seen[1][1], seen[0][2])
    assert torch.equal(seen[2][1], seen[1][2])
    assert not torch.equal(seen[3][1], seen[2][2]), "a new batch starts from new noise"


def test_the_anchor_adds_its_share_of_the_denoising_error() -> None:
    plain = make_task().step(make_batch(), 0, rng())
    anchored = make_task(denoising_weight=0.5).step(make_batch(), 0, rng())
    error = anchored.metrics["denoising_error"]
    assert error > 0
    torch.testing.assert_close(anchored.loss, plain.loss + 0.5 * error)


def test_the_loss_is_what_the_reward_lacks() -> None:
    result = make_task().step(make_batch(), 0, rng())
    torch.testing.assert_close(result.loss.detach(), -result.metrics["reward"])


@pytest.mark.parametrize(("method", "repeats"), [("draft", 1), ("refl", 1), ("easytune", 3)])
def test_easytune_alone_makes_several_steps_of_a_batch(
    monkeypatch, method: str, repeats: int
) -> None:
    steps = None if method == "refl" else 3
    task = make_task(method=method, backprop_steps=steps)
    monkeypatch.setattr(passes, "steps_per_epoch", lambda data, options: 5)
    monkeypatch.setattr(passes, "training_batches", lambda *_: iter("ab"))
    assert task.batches_per_epoch() == 5 * repeats
    assert list(task.batches(0)) == ["a"] * repeats + ["b"] * repeats


def test_easytune_goes_on_with_a_half_sampled_batch_after_a_resume() -> None:
    whole, parts = (make_task(method="easytune", backprop_steps=3) for _ in range(2))
    losses = [whole.step(make_batch(), step, rng(step)).loss for step in range(3)]
    first = parts.step(make_batch(), 0, rng(0)).loss
    resumed = make_task(method="easytune", backprop_steps=3)
    resumed.load_state_dict(parts.state_dict())
    rest = [resumed.step(make_batch(), step, rng(step)).loss for step in (1, 2)]
    assert torch.equal(torch.stack([first, *rest]), torch.stack(losses))
