"""MLD behind the seam: what its samples, errors and motions may depend on."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import HUMANML, KIT
from diffusion.sampling import SamplerOptions
from model.families import load_generator
from model.latent.assembly import assemble, load_mld
from model.latent.checkpoints import LatentSettings
from model.latent.generator import MLDGenerator
from model.seam import Samples
from tests.model.latent.tiny import draw, tiny_denoiser, tiny_vae, write_upstream
from tests.model.tiny import tiny_stats
from tests.train.fakes import FirstFeature
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.methods import METHODS
from train.preference.options import PreferenceOptions
from train.preference.pairs import Key
from utils.errors import UserError

CAPTIONS = ["a person walks", "a man waves his left hand", "someone kicks"]
LENGTHS = torch.tensor([12, 8, 3])


def tiny_mld(seed: int = 0, settings: dict | None = None, **changes) -> MLDGenerator:
    known = {"text_encoder_type": "builtin", "diffusion_steps": 100, "dropout": 0.0}
    return assemble(
        tiny_vae(seed, num_features=KIT.feature_dim),
        tiny_denoiser(seed, text_dim=256, **changes),
        LatentSettings(**(known | (settings or {}))),
        tiny_stats(KIT),
        "cpu",
    )


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw_motions() -> Samples:
    motion = tiny_stats(KIT).denormalize(draw(3, 12, KIT.feature_dim))
    return Samples(motion, LENGTHS)


class TrueNoise(nn.Module):
    """Knows the clean latents, so that it predicts the noise exactly."""

    def __init__(self, generator: MLDGenerator, latents: Tensor) -> None:
        super().__init__()
        self.config, self.latents = generator.model.config, latents
        self.signal = generator.diffusion.schedule.alphas_cumprod
        self.conditions: list[Tensor] = []

    def forward(self, z, t, condition, guidance=None) -> Tensor:
        self.conditions.append(condition.tokens)
        a = self.signal[t].view(-1, 1, 1).to(z.dtype)
        known = self.latents.repeat(len(z) // len(self.latents), 1, 1)
        return (z - a.sqrt() * known) / (1 - a).sqrt()


@torch.no_grad()
def test_the_error_of_the_true_noise_is_zero() -> None:
    generator = tiny_mld()
    latents = generator.encode(raw_motions(), seeded())
    noise, t = generator.noise(latents, seeded(4)), torch.tensor([0, 50, 99])
    condition = generator.encode_text(CAPTIONS)
    exact = generator.with_model(TrueNoise(generator, latents.x))
    assert exact.error(latents, t, noise, condition).max() < 1e-8
    found = generator.error(latents, t, noise, condition)
    predicted = generator.model(generator.diffusion.q_sample(latents.x, t, noise), t, condition)
    torch.testing.assert_close(found, (predicted - noise).square().mean(dim=(1, 2)))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm"])
def test_the_true_noise_leads_back_to_the_latents(sampler: str) -> None:
    generator = tiny_mld()
    latents = generator.encode(raw_motions(), seeded())
    exact = generator.with_model(TrueNoise(generator, latents.x))
    exact = replace(exact, sampler=SamplerOptions(sampler, 20))
    found = exact.sample(generator.encode_text(CAPTIONS), latents, seeded())
    left = (1 - generator.diffusion.schedule.ddim_end) ** 0.5 if sampler == "ddim" else 0.0
    assert (found.x - latents.x).abs().max() < 4 * left + 1e-4
    assert torch.equal(found.lengths, LENGTHS)


@torch.no_grad()
def test_guidance_1_is_the_conditional_pass_and_others_mix_in_the_empty_caption() -> None:
    generator, t = tiny_mld(), torch.tensor([40, 40, 40])
    condition, z = generator.encode_text(CAPTIONS), draw(3, 2, 16)
    conditional = generator.model(z, t, condition)
    free = generator.model(z, t, generator.encode_text([""] * 3))
    for scale in (0.0, 1.0, 7.5):
        found = replace(generator, guidance=scale).predicted_noise(condition)(z, t)
        expected = free + scale * (conditional - free)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(
        replace(generator, guidance=1.0).predicted_noise(condition)(z, t), conditional
    )
    never_dropped = tiny_mld(settings={"cond_mask_prob": 0.0})
    assert torch.equal(never_dropped.predicted_noise(condition)(z, t), conditional)
    assert generator.scale == 7.5


@torch.no_grad()
def test_a_dropped_caption_is_the_empty_one() -> None:
    for pooled in (True, False):
        generator = tiny_mld(settings={"pooled_text": pooled})
        condition = generator.encode_text(CAPTIONS)
        assert (condition.tokens.shape[1] == 1) == pooled
        latents = generator.encode(raw_motions(), seeded())
        inputs = (latents, torch.tensor([0, 50, 99]), generator.noise(latents, seeded(4)))
        drop = torch.tensor([False, True, False])
        found = generator.error(*inputs, condition, drop)
        plain = generator.error(*inputs, generator.encode_text([CAPTIONS[0], "", CAPTIONS[2]]))
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
        assert (found - generator.error(*inputs, condition))[1].abs() > 1e-6


def test_a_sample_depends_on_its_row_alone() -> None:
    """Neither on its companions' lengths nor on their captions, given its noise."""
    generator = replace(tiny_mld(), sampler=SamplerOptions("ddim", 10))
    condition = generator.encode_text(CAPTIONS)
    together = generator.sample(condition, generator.blank(LENGTHS), seeded())
    motions = generator.decode(together)
    part = slice(0, 1)
    alone = generator.sample(condition[part], generator.blank(LENGTHS[part]), seeded())
    torch.testing.assert_close(alone.x[0], together.x[0], rtol=0, atol=1e-5)
    for row, length in enumerate(LENGTHS):
        single = generator.decode(together[row : row + 1])
        assert single.x.shape == (1, length, KIT.feature_dim)
        torch.testing.assert_close(single.x[0], motions.x[row, :length], rtol=0, atol=1e-4)
        assert not motions.x[row, length:].any()
    spilled = replace(generator, spill=2).decode(together)
    torch.testing.assert_close(spilled.x[1, 8], generator.stats.mean)
    assert not spilled.x[1, 10:].any()


def test_encoding_reads_no_padding() -> None:
    generator, raw = tiny_mld(), raw_motions()
    beyond = torch.arange(12) >= LENGTHS[:, None]
    other = Samples(raw.x.masked_fill(beyond[..., None], float("nan")), LENGTHS)
    found = generator.encode(raw, seeded())
    torch.testing.assert_close(generator.encode(other, seeded()).x, found.x)
    assert not found.x.requires_grad


def test_a_start_near_the_data_keeps_close_to_it() -> None:
    generator = replace(tiny_mld(), sampler=SamplerOptions("ddim", 50), guidance=1.0)
    latents, condition = generator.encode(raw_motions(), seeded()), generator.encode_text(CAPTIONS)
    near, far = (generator.sample(condition, latents, seeded(), start).x for start in (0.1, 0.9))
    assert (near - latents.x).norm() < 0.5 * (far - latents.x).norm()


def test_sampling_leaves_the_mode_of_the_network_and_uses_no_dropout() -> None:
    generator = tiny_mld()
    generator.model.train()
    like, condition = generator.blank(LENGTHS), generator.encode_text(CAPTIONS)
    first, second = (generator.sample(condition, like, seeded()).x for _ in range(2))
    assert torch.equal(first, second)
    assert generator.model.training
    assert not generator.vae.training
    assert not any(p.requires_grad for p in generator.vae.parameters())


def test_the_reference_does_not_follow_the_policy() -> None:
    policy = tiny_mld()
    reference = policy.frozen()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(1.0)
    fresh = tiny_mld().model.state_dict()
    assert all(torch.equal(v, fresh[k]) for k, v in reference.model.state_dict().items())
    assert not any(p.requires_grad for p in reference.model.parameters())
    assert reference.vae is policy.vae


def test_steps_are_placed_as_upstream_does() -> None:
    generator = tiny_mld(settings={"diffusion_steps": 1000})
    assert generator.kept_steps() == list(range(1, 1000, 20))
    assert replace(generator, sampler=SamplerOptions("ddim", 1)).kept_steps() == [999]
    assert replace(generator, sampler=SamplerOptions("dpm", 8)).kept_steps()[-1] == 999
    with pytest.raises(UserError, match="exceed"):
        replace(generator, sampler=SamplerOptions("ddim", 1001)).kept_steps()
    with pytest.raises(UserError, match="no consistency student"):
        replace(generator, sampler=SamplerOptions("lcm", 1)).kept_steps()


def test_a_consistency_student_samples_in_few_steps_and_is_not_tuned() -> None:
    student = tiny_mld(settings={"diffusion_steps": 1000}, guidance_dim=8)
    assert student.sampler == SamplerOptions("lcm", 1)
    assert student.kept_steps() == [999]
    condition, like = student.encode_text(CAPTIONS), student.blank(LENGTHS)
    calls: list[Tensor] = []
    student.model.register_forward_hook(lambda _m, given, _o: calls.append(given[1]))
    for steps in (1, 4):
        calls.clear()
        found = replace(student, sampler=SamplerOptions("lcm", steps))
        assert found.sample(condition, like, seeded()).x.isfinite().all()
        assert [int(t[0]) for t in calls] == [999, 759, 499, 259][:steps]
        assert {len(t) for t in calls} == {3}  # no doubled batch
    with pytest.raises(UserError, match="consistency student"):
        student.frozen()
    with pytest.raises(UserError, match="a consistency student"):
        replace(student, sampler=SamplerOptions("ddim", 50)).sample(condition, like, seeded())


def test_mistakes_are_told_before_sampling() -> None:
    generator = tiny_mld()
    long = torch.tensor([37, 8, 3])
    with pytest.raises(UserError, match="37 frames is longer"):
        generator.sample(generator.encode_text(CAPTIONS), generator.blank(long), seeded())
    parts = generator.vae, generator.model, generator.settings
    with pytest.raises(UserError, match=r"takes 251 features \(kit\), the statistics have 263"):
        assemble(*parts, tiny_stats(HUMANML), "cpu")
    with pytest.raises(UserError, match="no skeleton has 5 features"):
        assemble(tiny_vae(), *parts[1:], Statistics("a", torch.zeros(5), torch.ones(5)), "cpu")
    with pytest.raises(UserError, match="256 wide, this denoiser reads 7"):
        assemble(parts[0], tiny_denoiser(), parts[2], tiny_stats(KIT), "cpu")


def test_checkpoints_come_back(tmp_path) -> None:
    generator = replace(tiny_mld(), sampler=SamplerOptions("ddim", 5))
    path = generator.save(tmp_path / "run", 7, None, {"dataset": "kit"})
    found = load_generator(path)
    assert isinstance(found, MLDGenerator)
    assert (found.settings, found.skeleton) == (generator.settings, KIT)
    assert found.sampler == SamplerOptions("ddim", 50)
    found = replace(found, sampler=generator.sampler)
    motions = [
        g.decode(g.sample(g.encode_text(CAPTIONS), g.blank(LENGTHS), seeded())).x
        for g in (generator, found)
    ]
    assert torch.equal(*motions)


def test_a_published_file_takes_the_statistics_of_its_dataset(tmp_path, monkeypatch) -> None:
    parts = tiny_vae(num_features=KIT.feature_dim), tiny_denoiser(text_dim=256)
    path = write_upstream(tmp_path / "mld.ckpt", *parts)
    monkeypatch.setattr("model.latent.assembly.read_settings", lambda *_: tiny_mld().settings)
    with pytest.raises(UserError, match="dataset kit"):
        load_mld(path, "cpu", str(tmp_path / "missing"))
    (tmp_path / "data").mkdir()
    tiny_stats(KIT).save(tmp_path / "data")
    found = load_mld(path, "cpu", str(tmp_path / "data"))
    assert torch.equal(found.stats.mean, tiny_stats(KIT).mean)
    tiny_stats(HUMANML).save(tmp_path / "data")
    with pytest.raises(UserError, match=r"takes 251 features \(kit\), the statistics have 263"):
        load_mld(path, "cpu", str(tmp_path / "data"))


def test_the_families_loader_keeps_what_a_family_does_unless_told(tmp_path) -> None:
    path = tiny_mld().save(tmp_path / "run", 7, None, {})
    chosen = SamplerOptions("dpm", 8)
    found = load_generator(path.parent, sampler=chosen, guidance=2.0, skeleton=KIT)
    assert (found.sampler, found.scale) == (chosen, 2.0)
    with pytest.raises(UserError, match="makes kit motions of 251 features"):
        load_generator(path, skeleton=HUMANML)


@pytest.mark.parametrize("method", [m for m, ps in METHODS.items() if all(p.online for p in ps)])
def test_every_online_method_tunes_the_denoiser_alone(method: str) -> None:
    policy = replace(tiny_mld(), sampler=SamplerOptions("ddim", 4))
    options = PreferenceOptions(method=method, num_candidates=2, tau=1.0)
    algorithm = PreferenceAlgorithm(options, policy, FirstFeature())
    keys = [Key(str(row), caption) for row, caption in enumerate(CAPTIONS)]
    outcome = algorithm.step(raw_motions(), keys, seeded())
    outcome.loss.mean().backward()
    assert outcome.loss.isfinite().all()
    gradients = [p.grad for p in policy.model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients)
    frozen = [*policy.vae.parameters(), *algorithm.reference.model.parameters()]
    assert all(p.grad is None for p in frozen)


def test_the_signal_is_that_of_the_schedule() -> None:
    generator = tiny_mld()
    signal = generator.signal(torch.arange(generator.levels))
    expected = generator.diffusion.schedule.alphas_cumprod.float()
    torch.testing.assert_close(signal, expected)
