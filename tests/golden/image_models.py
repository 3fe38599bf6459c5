"""Diffusion models of pictures and their LoRA tuning against numbers of diffusers and peft."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from model.image.condition import ImageCondition
from model.image.generator import ImageGenerator
from model.image.latents import Posteriors
from model.image.load import assemble
from model.image.lora import Adapters
from model.image.noising import FlowNoising, VarianceNoising
from model.image.packages import extra
from model.seam import Samples
from tests.golden.base import Golden, Row, covers
from train.preference.losses import DenoisingErrors, preferred_weight, sopo_loss

PASS, PATH = 2e-5, 1e-4  # of a forward pass, absolute; of a trajectory or gradient, relative
SMALL = 2e-6  # between two ways to compute the same error


def network(g: Golden, name: str, cls: Any) -> Any:
    """A network of a file, by diffusers, in eval mode."""
    model = cls.from_config(json.loads(g.scalar(f"cfg/{name}_json")))
    model.load_state_dict(g.state_dict(f"{name}/"))
    return model.eval()


def scheduler_of(g: Golden, cls: Any, **settings: Any) -> Any:
    return cls.from_config(json.loads(g.scalar("cfg/scheduler_json")), **settings)


def text_encoder_of(g: Golden) -> Any:
    transformers = extra("transformers")
    config = transformers.CLIPTextConfig(**json.loads(g.scalar("cfg/text_encoder_json")))
    model = transformers.CLIPTextModel(config)
    state = g.state_dict("text_encoder/")
    known = set(model.state_dict())
    prefix = "" if known & set(state) else "text_model."  # where older transformers keep it
    model.load_state_dict({prefix + key: value for key, value in state.items()}, strict=False)
    return model.eval()


def generator_of(g: Golden) -> ImageGenerator:
    """The file's pipeline as a generator; the density is uniform, so that level t is row T - 1 - t
    of a flow's tables."""
    d = extra("diffusers")
    vae = network(g, "vae", d.AutoencoderKL)
    if "sd_unet" in g.name:
        pipe = d.StableDiffusionPipeline(
            vae=vae,
            text_encoder=text_encoder_of(g),
            tokenizer=None,
            unet=network(g, "unet", d.UNet2DConditionModel),
            scheduler=scheduler_of(g, d.DDIMScheduler, set_alpha_to_one=False),  # as SD 1.5
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        return assemble(pipe, "cpu")
    encoders = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    scheduler = scheduler_of(g, d.FlowMatchEulerDiscreteScheduler)
    if "sd3" in g.name:
        encoders |= dict.fromkeys(("text_encoder_3", "tokenizer_3"))
        transformer = network(g, "transformer", d.SD3Transformer2DModel)
        pipe = d.StableDiffusion3Pipeline(
            vae=vae, transformer=transformer, scheduler=scheduler, **encoders
        )
    else:
        transformer = network(g, "transformer", d.FluxTransformer2DModel)
        pipe = d.FluxPipeline(vae=vae, transformer=transformer, scheduler=scheduler, **encoders)
    return assemble(pipe, "cpu", "uniform")


def conditions(g: Golden) -> tuple[ImageCondition, ImageCondition | None]:
    """The captions of the file, and what stands for none, where it has that."""
    if g.has("text/last_hidden_state"):
        condition = ImageCondition.of(g.tensor("text/last_hidden_state"))
        empty = ImageCondition.of(g.tensor("text/empty_last_hidden_state"))
        return condition, empty.repeat(len(condition))
    tokens, pooled = g.tensor("text/prompt_embeds"), g.tensor("text/pooled_prompt_embeds")
    if not g.has("text/negative_prompt_embeds"):
        return ImageCondition.of(tokens, pooled), None
    negative = (g.tensor(f"text/negative_{name}prompt_embeds") for name in ("", "pooled_"))
    return ImageCondition.of(tokens, pooled), ImageCondition.of(*negative)


def levels_of(g: Golden) -> Tensor:
    """The levels t ``[2 B]`` of the training step: winners, then losers."""
    if g.has("train/index"):
        return (len(g["scheduler/train_timesteps"]) - 1 - g.tensor("train/index")).repeat(2)
    return g.tensor("train/timesteps")


@covers("image_sd_unet*.npz", "image_sd3_transformer*.npz", "image_flux_transformer*.npz")
def image_model(g: Golden) -> Iterator[Row]:
    generator = generator_of(g)
    with torch.no_grad():
        if g.has("text/input_ids"):
            yield from text(g, generator)
        yield from levels(g, generator)
        if g.has("vae_io/image"):
            yield from latents(g, generator)
        yield from training_step(g, generator)
        yield from trajectory(g, generator)
    yield from tuning(g, generator)


def text(g: Golden, generator: ImageGenerator) -> Iterator[Row]:
    encoder = generator.wrapper.pipe.text_encoder
    for prefix in ("", "empty_"):
        tokens = encoder(g.tensor(f"text/{prefix}input_ids")).last_hidden_state
        key = f"text/{prefix}last_hidden_state"
        yield g.close(key, tokens, g[key], atol=PASS)
    pooled = encoder(g.tensor("text/input_ids")).pooler_output
    yield g.close("text/pooler_output", pooled, g["text/pooler_output"], atol=PASS)


def levels(g: Golden, generator: ImageGenerator) -> Iterator[Row]:
    noising = generator.noising
    if isinstance(noising, VarianceNoising):
        key = "scheduler/alphas_cumprod"
        yield g.close(key, noising.alphas_cumprod, g[key], atol=1e-7)
        signal = noising.signal(levels_of(g))
        yield g.close("train/snr", signal / (1 - signal), g["train/snr"], rtol=1e-5)
        return
    assert isinstance(noising, FlowNoising)
    for name in ("timesteps", "sigmas"):
        table = getattr(noising, name).flip(0)
        yield g.close(f"scheduler/train_{name}", table, g[f"scheduler/train_{name}"], rtol=1e-6)
    index = (g.tensor("train/u") * noising.levels).floor().long()
    yield g.equal("train/index", index, g["train/index"])
    yield g.close("train/timesteps", noising.times(levels_of(g)), g["train/timesteps"], rtol=1e-6)
    yield g.close("train/sigmas", noising.sigmas[levels_of(g)], g["train/sigmas"], rtol=1e-6)
    for key in g.keys("shift/mu_"):
        config, d = generator.wrapper.pipe.scheduler.config, extra("diffusers.pipelines.flux")
        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        shift = d.pipeline_flux.calculate_shift(
            int(key.rpartition("_")[2]), *(config[name] for name in names)
        )
        yield g.close(key, shift, g[key], rtol=1e-6)


def latents(g: Golden, generator: ImageGenerator) -> Iterator[Row]:
    space, images = generator.space, g.tensor("vae_io/image")
    posteriors = space.posteriors((images + 1) / 2)
    mean, std = posteriors.x.chunk(2, dim=1)
    yield g.close("vae_io/posterior_mean", mean, g["vae_io/posterior_mean"], atol=PASS)
    z = mean
    if g.has("vae_io/posterior_noise"):
        yield g.close("vae_io/posterior_std", std, g["vae_io/posterior_std"], atol=PASS)
        z = mean + std * g.tensor("vae_io/posterior_noise")
    yield g.close("vae_io/latents", space.normalise(z), g["vae_io/latents"], atol=PASS)
    still = Posteriors(torch.cat([z, torch.zeros_like(z)], dim=1))
    drawn = generator.encode(still, torch.Generator().manual_seed(0)).x
    yield g.close("vae_io/latents, drawn", drawn, g["vae_io/latents"], atol=PASS)
    decoded = generator.decode(Samples(g.tensor("vae_io/latents"))).x
    expected = (g.tensor("vae_io/decoded") / 2 + 0.5).clamp(0, 1)
    yield g.close("vae_io/decoded", decoded, expected, atol=PASS)


def training_step(g: Golden, generator: ImageGenerator) -> Iterator[Row]:
    t, x, noise = levels_of(g), g.tensor("train/latents"), g.tensor("train/noise")
    noising, (condition, _) = generator.noising, conditions(g)
    pairs, samples = condition.repeat(2), Samples(x)
    if g.has("train/guidance"):
        generator.guidance = float(g.scalar("train/guidance"))
    noisy = noising.noisy(x, t, noise)
    yield g.close("train/noisy", noisy, g["train/noisy"], atol=PASS)
    if g.has("train/packed_noisy"):
        packed = generator.wrapper.pack(noisy)
        yield g.close("train/packed_noisy", packed, g["train/packed_noisy"], atol=PASS)
    predicted = generator.wrapper.predict(noisy, noising.times(t), pairs, generator.guidance)
    yield g.close("train/pred", predicted, g["train/pred"], atol=PASS)
    error = generator.error(samples, t, noise, pairs)
    if isinstance(noising, VarianceNoising):
        yield g.close("train/error_epsilon", error, g["train/error_epsilon"], atol=PASS)
        clean = noising.clean(noisy, t, predicted)
        key = "train/x0_from_epsilon"
        yield g.close(key, clean, g[key], atol=PASS, rtol=PATH)
        other = replace(generator, noising=replace(noising, predicts_v=True))
        key, target = "train/velocity_target", other.noising.target(x, t, noise)
        yield g.close(key, target, g[key], atol=PASS)
        error = other.error(samples, t, noise, pairs)
        yield g.close("train/error_v", error, g["train/error_v"], atol=PASS)
        return
    yield g.close("train/target", noising.target(x, t, noise), g["train/target"], atol=PASS)
    yield g.close("train/error_v", error, g["train/error_v"], atol=PASS)
    if g.has("train/x0_pred"):
        clean = noising.clean(noisy, t, predicted)
        yield g.close("train/x0_pred", clean, g["train/x0_pred"], atol=PASS)
        error = (clean - x).square().flatten(1).mean(dim=1)
        yield g.close("train/error_x0", error, g["train/error_x0"], atol=PASS)


def trajectory(g: Golden, generator: ImageGenerator) -> Iterator[Row]:
    """Every step of the pipeline's sampler from the file's noise."""
    group = "ddim" if g.has("ddim/start") else "euler"
    packed = "_packed" if g.has(f"{group}/final_packed") else ""
    condition, empty = conditions(g)
    path: list[Tensor] = []

    def keep(pipe: Any, step: int, time: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        path.append(values["latents"])
        return values

    steps, scale = int(g.scalar(f"{group}/steps")), float(g.scalar(f"{group}/guidance"))
    start = g.tensor(f"{group}/start")

    def run(scale: float, **arguments: Any) -> Tensor:
        return generator.wrapper.sample(start, condition, empty, steps, scale, None, **arguments)

    if packed:
        key = f"{group}/start_packed"
        yield g.close(key, generator.wrapper.pack(start), g[key], atol=PASS)
    final = run(scale, callback_on_step_end=keep)
    scheduler = generator.wrapper.pipe.scheduler
    for name in ("timesteps", "sigmas"):
        if g.has(f"{group}/{name}"):
            key = f"{group}/{name}"
            yield g.close(key, getattr(scheduler, name), g[key], rtol=1e-6)
    if g.has("ddim/final_alpha_cumprod"):
        key = "ddim/final_alpha_cumprod"
        yield g.close(key, scheduler.final_alpha_cumprod, g[key], atol=1e-7)
    key = f"{group}/trajectory{packed}"
    yield close_path(g, key, torch.stack(path, dim=1))
    yield close_path(g, f"{group}/final", final)
    if packed:
        key = f"{group}/final_packed"
        yield close_path(g, key, generator.wrapper.pack(final))
    images = generator.decode(Samples(final)).x.permute(0, 2, 3, 1)
    yield g.close(f"{group}/image", images, g[f"{group}/image"], atol=PATH)
    if g.has(f"{group}/final_no_guidance"):
        yield close_path(g, f"{group}/final_no_guidance", run(1.0))


def close_path(g: Golden, key: str, found: Tensor) -> Row:
    """Within `PATH` of the largest value, as errors grow along a trajectory."""
    return g.close(key, found, g[key], atol=PATH * max(1.0, float(abs(g[key]).max())))


def tuning(g: Golden, generator: ImageGenerator) -> Iterator[Row]:
    """The file's LoRA, Eq. 17 and Diffusion-DPO on it, and their gradients."""
    add_stored_lora(g, generator)
    t, noise = levels_of(g), g.tensor("train/noise")
    samples, pairs = Samples(g.tensor("train/latents")), conditions(g)[0].repeat(2)
    if g.has("train/guidance"):
        generator.guidance = float(g.scalar("train/guidance"))
    noisy, times = generator.noising.noisy(samples.x, t, noise), generator.noising.times(t)
    found = {}
    for name, model in (("policy", generator), ("reference", generator.frozen())):
        with torch.no_grad(), model._weights():
            predicted = model.wrapper.predict(noisy, times, pairs, model.guidance)
        key = f"lora_train/pred_{name}"
        yield g.close(key, predicted, g[key], atol=PASS)
        found[name] = model.error(samples, t, noise, pairs)
        yield g.close(
            f"lora_train/error_{name}", found[name], g[f"lora_train/error_{name}"], atol=PASS
        )
    halves = zip(found["policy"].chunk(2), found["reference"].detach().chunk(2), strict=True)
    yield from losses(g, generator, *(DenoisingErrors(p, r) for p, r in halves))


def add_stored_lora(g: Golden, generator: ImageGenerator) -> None:
    peft, denoiser = extra("peft"), generator.wrapper.denoiser
    denoiser.add_adapter(peft.LoraConfig(**json.loads(g.scalar("cfg/lora_json"))))
    peft.set_peft_model_state_dict(denoiser, g.state_dict("lora/"))
    generator.adapters = Adapters(denoiser)


def losses(
    g: Golden, generator: ImageGenerator, winner: DenoisingErrors, loser: DenoisingErrors
) -> Iterator[Row]:
    beta, gate = float(g.scalar("sopo/beta")), g.tensor("sopo/gate")
    weight = preferred_weight(g.tensor("sopo/similarity"), beta, float(g.scalar("sopo/C")))
    yield g.close("sopo/beta_w", weight, g["sopo/beta_w"], rtol=1e-5)
    scale = float(g.scalar("sopo/T")) * float(g.scalar("sopo/omega"))
    small = float(g.scalar("sopo/small_scale"))
    result = sopo_loss(winner, loser, weight, beta, gate, scale)
    # z is T times a difference of nearly equal errors; d loss / d z is no larger than the loss
    margin = scale * SMALL
    yield g.close("sopo/z", result.margin, g["sopo/z"], atol=margin, rtol=PATH)
    yield g.close("sopo/loss", result.loss.mean(), g["sopo/loss"], rtol=2 * margin)
    every = torch.full_like(weight, beta)
    dpo = sopo_loss(winner, loser, every, beta, torch.ones_like(gate), scale)
    yield g.close("sopo/dpo_z", dpo.margin, g["sopo/dpo_z"], atol=margin, rtol=PATH)
    yield g.close("sopo/dpo_loss", dpo.loss.mean(), g["sopo/dpo_loss"], rtol=2 * margin)
    loss = sopo_loss(winner, loser, weight, beta, gate, small).loss.mean()
    yield g.close("sopo/small_scale_loss", loss, g["sopo/small_scale_loss"], rtol=PATH)
    loss.backward()
    assert generator.adapters is not None
    gradients = {
        name.replace(".default.", "."): weight.grad
        for name, weight in generator.adapters.named_weights().items()
    }
    for key in g.keys("sopo/small_scale_grad/"):
        gradient = gradients[key.removeprefix("sopo/small_scale_grad/")]
        largest = float(abs(g[key]).max())
        yield g.close(key.removeprefix("sopo/"), gradient, g[key], atol=PATH * largest, rtol=PATH)
    norm = torch.stack([v.norm() for v in gradients.values() if v is not None]).norm()
    yield g.close("sopo/small_scale_grad_norm", norm, g["sopo/small_scale_grad_norm"], rtol=PATH)
