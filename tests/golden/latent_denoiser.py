"""The latent denoiser, its training, its samplers and its consistency student against upstream's
numbers."""

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion.gaussian import GaussianDiffusion
from diffusion.samplers import Denoiser, denoiser_of_noise, sample_ddim, sample_lcm
from diffusion.schedule import respace, scaled_linear_schedule, select_offset_stride
from model.latent.checkpoints import UNUSED, denoiser_config
from model.latent.denoiser import LatentDenoiser, guidance_embedding, timestep_sinusoid
from model.text.condition import Condition
from tests.golden.base import Golden, Row, covers
from tests.golden.latent_vae import (
    PASS,
    batch_first,
    record,
    settings_of,
    sizes,
    vae_of,
    weights_of,
)

TRAJECTORY = 1e-3  # of a run of guided steps, absolute


def denoiser_of(g: Golden, prefix: str = "sd/") -> LatentDenoiser:
    weights = weights_of(g, denoiser=prefix)
    model = LatentDenoiser(denoiser_config(weights, settings_of(g)))
    model.load_state_dict({k: v for k, v in weights.denoiser.items() if k != UNUSED})
    return model.eval()


def condition_of(tokens: Tensor) -> Condition:
    return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def diffusion_of(g: Golden) -> tuple[GaussianDiffusion, int]:
    """The process and the number of sampling steps that the file states."""
    settings = json.loads(g.scalar("scheduler/config_json"))
    settings = settings.get("sampling", settings)
    params = settings["params"]
    steps = settings.get("num_inference_timesteps") or settings["num_inference_steps"]
    bounds = params["beta_start"], params["beta_end"]
    return GaussianDiffusion(scaled_linear_schedule(params["num_train_timesteps"], *bounds)), steps


@covers("mld_denoiser*.npz", "motionlcm_*_denoiser*.npz")
@torch.no_grad()
def latent_denoiser(g: Golden) -> Iterator[Row]:
    yield from schedule(g)
    for prefix in ("", "multi/"):
        if not g.has(f"{prefix}sample"):
            continue
        model = denoiser_of(g, f"{prefix}sd/")
        yield from sizes(g, model.config, prefix)
        yield from passes(g, model, prefix)
        yield from trajectories(g, model, prefix)
        yield from training(g, model, prefix)
    yield from inner_values(g)
    yield from decoded(g)
    if g.has("lcm/out"):
        yield from consistency_student(g, denoiser_of(g, "lcm/sd/"))


def schedule(g: Golden) -> Iterator[Row]:
    diffusion, steps = diffusion_of(g)
    full = diffusion.schedule
    yield g.close(
        "scheduler/alphas_cumprod", full.alphas_cumprod, g["scheduler/alphas_cumprod"], atol=1e-6
    )
    if g.has("scheduler/betas"):
        yield g.close("scheduler/betas", full.betas, g["scheduler/betas"], atol=1e-8)
    last = g["scheduler/final_alpha_cumprod"]
    yield g.close("scheduler/final_alpha_cumprod", full.ddim_end, last, atol=1e-6)
    kept = select_offset_stride(full.num_timesteps, steps)
    yield g.equal("scheduler/timesteps", kept[::-1], g["scheduler/timesteps"])


def passes(g: Golden, model: LatentDenoiser, prefix: str) -> Iterator[Row]:
    z, condition = g.tensor(f"{prefix}sample"), condition_of(g.tensor(f"{prefix}text_emb"))
    every = g.tensor(f"{prefix}timestep_scalar").expand(len(z))
    for key, t in (("out", g.tensor(f"{prefix}timestep")), ("out_scalar_t", every)):
        yield g.close(f"{prefix}{key}", model(z, t, condition), g[f"{prefix}{key}"], atol=PASS)
    if g.has(f"{prefix}text_emb_seq"):
        tokens = condition_of(g.tensor(f"{prefix}text_emb_seq"))
        found = model(z, g.tensor(f"{prefix}timestep"), tokens)
        yield g.close(f"{prefix}out_text_seq", found, g[f"{prefix}out_text_seq"], atol=PASS)
    if not g.has(f"{prefix}cfg_out"):
        return
    both = condition_of(g.tensor(f"{prefix}cfg_emb"))
    found = model(z.repeat(2, 1, 1), every.repeat(2), both)
    yield g.close(f"{prefix}cfg_out_both", found, g[f"{prefix}cfg_out_both"], atol=PASS)
    guided = guided_noise(model, g, prefix)(z, every)
    yield g.close(f"{prefix}cfg_out", guided, g[f"{prefix}cfg_out"], atol=1e-4)


def inner_values(g: Golden) -> Iterator[Row]:
    model, t = denoiser_of(g), g.tensor("timestep")
    sinusoid = timestep_sinusoid(t, model.config.time_dim)
    yield g.close(
        "time_proj", sinusoid, g["time_proj"], atol=1e-4
    )  # t times the rounding of a rate
    yield g.close("time_emb", model.time_embedding(sinusoid), g["time_emb"], atol=PASS)
    text = g.tensor("text_emb")
    if g.has("text_proj"):
        yield g.close("text_proj", model.emb_proj(text), g["text_proj"], atol=PASS)
    if g.has("trace/blocks"):
        blocks = record(model.encoder, "norm2")
        model(g.tensor("sample"), t, condition_of(text))
        trace = torch.stack(blocks).transpose(1, 2)
        yield g.close("trace/blocks", trace, g["trace/blocks"], atol=PASS)


def guided_noise(model: LatentDenoiser, g: Golden, prefix: str) -> Denoiser:
    """Guidance with the file's condition; the two parts of ``cfg_emb`` have changed places since
    2023."""
    parts = g.tensor(f"{prefix}cfg_emb").chunk(2)
    empty, text = map(condition_of, parts if g.name.startswith("mld") else parts[::-1])
    scale = float(g.scalar("guidance_scale"))

    def predict(x: Tensor, t: Tensor) -> Tensor:
        base = model(x, t, empty)
        return base + scale * (model(x, t, text) - base)

    return predict


def trajectories(g: Golden, model: LatentDenoiser, prefix: str) -> Iterator[Row]:
    diffusion, steps = diffusion_of(g)
    full = diffusion.schedule
    kept = GaussianDiffusion(respace(full, select_offset_stride(full.num_timesteps, steps)))
    noise, early = g.tensor(f"{prefix}traj/noise"), g.name.startswith("mld")
    text = condition_of(g.tensor(f"{prefix}text_emb"))
    cases = {
        "final": guided_noise(model, g, prefix),
        "final_no_guidance": lambda x, t: model(x, t, text),
    }
    for name, predict in cases.items():
        path: list[Tensor] = []
        denoise = denoiser_of_noise(recording(predict, path), diffusion)
        path.append(sample_ddim(denoise, kept, noise, no_noise))
        latents = torch.stack([batch_first(x) if early else x for x in path[1:]])
        key = f"{prefix}traj/{name}"
        yield g.close(key, latents[-1], g[key], atol=TRAJECTORY)
        if name == "final":
            key = f"{prefix}traj/latents"
            yield g.close(key, latents, g[key], atol=TRAJECTORY)


def decoded(g: Golden) -> Iterator[Row]:
    """The last latents as motions, by the VAE of the file's companion where that lies beside it."""
    companion = g.path.with_name(g.name.replace("denoiser", "vae"))
    if not g.has("traj/decoded_final") or not companion.is_file():
        return
    other, expected = Golden(companion), g.tensor("traj/decoded_final")
    latent = g.tensor("traj/final")
    latent = batch_first(latent) if g.name.startswith("mld") else latent
    motion = vae_of(other).decode(latent, other.tensor("length"), expected.shape[1])
    yield g.close("traj/decoded_final", motion, expected, atol=1e-4)


def recording(predict: Denoiser, path: list[Tensor]) -> Denoiser:
    """`predict`, which keeps every x that it is asked for in `path`."""

    def asked(x: Tensor, t: Tensor) -> Tensor:
        path.append(x)
        return predict(x, t)

    return asked


def no_noise(step: int) -> Tensor:
    raise AssertionError(f"step {step} of a deterministic sampler asks for noise")


def training(g: Golden, model: LatentDenoiser, prefix: str) -> Iterator[Row]:
    diffusion, _ = diffusion_of(g)
    values = {
        key.removeprefix(f"{prefix}train/"): g.tensor(key) for key in g.keys(f"{prefix}train/")
    }
    z, noise, t = values["latent"], values["noise"], values["timestep"]
    z = batch_first(z) if g.name.startswith("mld") else z
    noisy = diffusion.q_sample(z, t, noise)
    yield g.close(f"{prefix}train/noisy", noisy, values["noisy"], atol=PASS)
    found = model(noisy, t, condition_of(g.tensor(f"{prefix}text_emb")))
    yield g.close(f"{prefix}train/noise_pred", found, values["noise_pred"], atol=PASS)
    error = (found - noise).square().flatten(1).mean(dim=1)
    yield g.close(f"{prefix}train/loss", error.mean(), values["loss"], rtol=1e-5)
    if "x0_pred" in values:
        x0 = diffusion.predict_x0(noisy, t, found)
        yield g.close(f"{prefix}train/x0_pred", x0, values["x0_pred"], atol=1e-4, rtol=1e-4)


def consistency_student(g: Golden, model: LatentDenoiser) -> Iterator[Row]:
    scale = g.tensor("lcm/w") + 1
    yield g.equal("cfg/time_cond_proj_dim", model.config.guidance_dim, g["cfg/time_cond_proj_dim"])
    embedding = guidance_embedding(scale, model.config.guidance_dim)
    yield g.close("lcm/w_embedding", embedding, g["lcm/w_embedding"], atol=PASS)
    z, t, text = g.tensor("sample"), g.tensor("timestep"), condition_of(g.tensor("text_emb"))
    yield g.close("lcm/out", model(z, t, text, scale), g["lcm/out"], atol=PASS)
    yield g.close("lcm/out_no_cond", model(z, t, text), g["lcm/out_no_cond"], atol=PASS)
    diffusion, _ = diffusion_of(g)
    one = GaussianDiffusion(respace(diffusion.schedule, g["lcm/timesteps_1step"].tolist()))
    every = torch.full((len(z),), float(g.scalar("lcm/guidance_scale")))
    denoise = denoiser_of_noise(lambda x, t: model(x, t, text, every), diffusion)
    found = sample_lcm(denoise, one, g.tensor("traj/noise"), no_noise)
    yield g.close("lcm/one_step_final", found, g["lcm/one_step_final"], atol=5e-4)
