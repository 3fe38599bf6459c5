"""A diffusers pipeline behind the seam: the reference, its latents, its noise levels, its files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.image.condition import ImageCondition
from model.image.generator import ImageGenerator
from model.image.load import assemble, resolution_of, with_lora
from model.image.lora import FILE
from model.image.noising import FlowNoising, flow_noising
from model.image.small import new_pipeline, new_vae, whiten
from model.seam import Generator, Samples
from tests.model.image.tiny import (
    CAPTIONS,
    SIZE,
    SIZES,
    disturb,
    pictures,
    tiny_generator,
    tiny_pipeline,
)
from utils.errors import UserError
from utils.extras import extra

pytest.importorskip("diffusers")
pytest.importorskip("peft")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def errors(generator: ImageGenerator) -> Tensor:
    latents = generator.encode(Samples(pictures()), rng())
    t = torch.tensor([10, 300, 700, 990])
    noise = generator.noise(latents, rng(1))
    return generator.error(latents, t, noise, generator.encode_text(CAPTIONS))


def test_the_reference_is_the_policy_until_the_adapters_move() -> None:
    policy: Generator = tiny_generator()
    assert isinstance(policy, ImageGenerator)
    reference = policy.frozen()
    before = errors(policy)
    assert torch.equal(before, errors(reference)), "B = 0 changes nothing"
    disturb(policy)
    assert not torch.allclose(before, errors(policy))
    assert torch.equal(before, errors(reference))


def test_only_adapters_get_gradients() -> None:
    policy = tiny_generator()
    disturb(policy)
    errors(policy.frozen())  # switching the adapters off and on leaves them trainable
    errors(policy).mean().backward()
    with_gradient = {n for n, p in policy.model.named_parameters() if p.grad is not None}
    assert with_gradient == set(policy.adapters.names)
    assert all(p.grad.abs().sum() > 0 for p in policy.adapters.weights)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        policy = tiny_generator()
        disturb(policy)
        if checkpointing:
            policy.model.enable_gradient_checkpointing()
        errors(policy).mean().backward()
        gradients.append([p.grad for p in policy.adapters.weights])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_samples_follow_the_seed_and_carry_no_gradient() -> None:
    policy = tiny_generator()
    condition, like = policy.encode_text(CAPTIONS), policy.blank(4, SIZE, SIZE)
    first, again, other = (policy.sample(condition, like, rng(s)).x for s in (1, 1, 2))
    assert first.shape == (4, 4, SIZE // 2, SIZE // 2)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not first.requires_grad
    raw = policy.decode(Samples(first)).x
    assert raw.shape == (4, 3, SIZE, SIZE)
    assert raw.min() >= 0
    assert raw.max() <= 1


def test_a_level_of_little_noise_is_predicted_as_what_the_target_says() -> None:
    """v of a perfect network gives x back at every level."""
    noising = tiny_generator(lora=False).noising
    x, noise = torch.randn(3, 4, 2, 2, generator=rng()), torch.randn(3, 4, 2, 2, generator=rng(1))
    t = torch.tensor([0, 500, 998])
    clean = noising.clean(noising.noisy(x, t, noise), t, noising.target(x, t, noise))
    torch.testing.assert_close(clean, x, atol=1e-4, rtol=1e-4)
    signal = noising.signal(torch.arange(noising.levels))
    assert (signal.diff() < 0).all()


def test_kept_posteriors_are_encoded_as_the_pictures_are() -> None:
    policy = tiny_generator()
    kept = policy.space.posteriors(pictures())
    fresh = policy.encode(Samples(pictures()), rng(3)).x
    assert torch.equal(policy.encode(kept, rng(3)).x, fresh)
    assert not torch.equal(policy.encode(kept, rng(4)).x, fresh)


def test_captions_are_encoded_once_and_outlive_their_encoder() -> None:
    policy = tiny_generator()
    before = policy.encode_text(CAPTIONS)
    policy.prompts.prepare(CAPTIONS, drop_encoders=True)
    assert policy.wrapper.pipe.text_encoder is None
    assert torch.equal(policy.encode_text(CAPTIONS[::-1]).tokens, before.tokens.flip(0))
    like = policy.blank(2, SIZE, SIZE)
    assert policy.sample(policy.encode_text(CAPTIONS[:2]), like, rng()).x.isfinite().all()


def test_conditions_keep_tokens_and_pooled_vectors_together() -> None:
    tokens, pooled = torch.randn(3, 5, 2, generator=rng()), torch.randn(3, 4, generator=rng())
    condition = ImageCondition.of(tokens, pooled)
    twice = condition.repeat_interleave(2)
    assert torch.equal(twice.tokens[1::2], tokens)
    assert torch.equal(twice.pooled[::2], pooled)
    assert torch.equal(condition.repeat(2).pooled, torch.cat([pooled, pooled]))
    joined = ImageCondition.cat([condition[:1], condition[1:]])
    assert torch.equal(joined.pooled, pooled)
    assert len(condition[torch.tensor([2, 0])]) == 2


def test_saved_lora_is_read_by_diffusers_and_samples_alike(tmp_path: Path) -> None:
    policy = tiny_generator()
    disturb(policy)
    path = policy.save(tmp_path, 5, None, {"seed": 0})
    assert path.name == "lora000000005.safetensors"
    condition, like = policy.encode_text(CAPTIONS), policy.blank(4, SIZE, SIZE)
    expected = policy.sample(condition, like, rng()).x
    pipe = tiny_pipeline()
    pipe.load_lora_weights(str(tmp_path))
    loaded = assemble(pipe, "cpu")
    loaded.steps, loaded.guidance = policy.steps, policy.guidance
    torch.testing.assert_close(loaded.sample(condition, like, rng()).x, expected)
    base = tiny_generator(lora=False)
    assert not torch.allclose(base.sample(condition, like, rng()).x, expected)
    ours = with_lora(base, str(path))
    torch.testing.assert_close(ours.sample(condition, like, rng()).x, expected)


def test_lora_of_another_model_is_refused(tmp_path: Path) -> None:
    policy = tiny_generator()
    policy.save(tmp_path, 1, None, {})
    wider = replace(SIZES, unet_channels=[32, 32])
    other = assemble(new_pipeline(wider, new_vae(SIZES, SIZE), ["a"], SIZE), "cpu")
    with pytest.raises(UserError, match="--lora_path"):
        with_lora(other, str(tmp_path / FILE))
    with pytest.raises(UserError, match="missing does not exist"):
        with_lora(other, str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"empty holds no {FILE}"):
        with_lora(other, str(tmp_path / "empty"))


def test_levels_of_a_flow_ascend_and_are_equally_likely() -> None:
    scheduler = extra("diffusers").FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(5)  # a sampler's own steps do not reach the training levels
    uniform, middle = (flow_noising(scheduler, d) for d in ("uniform", "logit_normal"))
    for noising in (uniform, middle):
        assert isinstance(noising, FlowNoising)
        assert noising.levels == 1000
        assert (noising.sigmas.diff() >= 0).all()
        torch.testing.assert_close(noising.timesteps, 1000 * noising.sigmas, atol=1e-3, rtol=1e-4)
    # half of the levels of either have u > 1/2, whose shifted sigma is 3/4
    for noising in (uniform, middle):
        assert noising.level_share(0.75) == pytest.approx(0.5, abs=0.01)
    # logit-normal: 68 % of u between sigmoid(-1) and sigmoid(1)
    low, high = (3 * u / (1 + 2 * u) for u in (0.268941, 0.731059))
    share = ((middle.sigmas > low) & (middle.sigmas < high)).float().mean()
    assert share == pytest.approx(0.6827, abs=0.01)


def test_whitened_latents_give_the_same_pictures() -> None:
    vae = new_vae(SIZES, SIZE).eval()
    images = pictures(4) * 2 - 1
    with torch.no_grad():
        before = vae.encode(images).latent_dist
        expected = vae.decode(before.mean).sample
        whiten(vae, before.mean)
        after = vae.encode(images).latent_dist
        torch.testing.assert_close(
            after.mean.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(after.mean.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
        scale = before.mean.std(dim=(0, 2, 3)).view(1, -1, 1, 1)
        torch.testing.assert_close(after.std * scale, before.std, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(vae.decode(after.mean).sample, expected, atol=1e-4, rtol=1e-3)


def test_resolutions_that_latents_cannot_have_are_refused() -> None:
    policy = tiny_generator()
    assert resolution_of(policy, 0) == SIZE
    with pytest.raises(UserError, match="multiple of 2"):
        resolution_of(policy, 9)
