"""Schedules, forward process, sampling loops and losses against upstream's numbers.

The stand-in network of the files is x0 = tanh(a x + b t / N) + c per feature, with t the original
step. Upstream's layout ``[B, F, 1, T]`` is kept here, since the samplers take any shape.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from diffusion.gaussian import GaussianDiffusion, masked_mse
from diffusion.samplers import Denoiser, Inpainting, sample_ancestral, sample_ddim
from diffusion.schedule import NoiseSchedule, make_schedule, respace, select_timesteps
from tests.golden.base import Golden, Row, covers

SCHEDULE_KEYS = {
    "betas": "betas",
    "alphas_cumprod": "alphas_cumprod",
    "alphas_cumprod_prev": "alphas_cumprod_prev",
    "posterior_variance": "posterior_variance",
    "posterior_log_variance_clipped": "posterior_log_variance",
    "posterior_mean_coef1": "posterior_mean_coef1",
    "posterior_mean_coef2": "posterior_mean_coef2",
}


def standin(g: Golden, num_timesteps: int) -> Denoiser:
    a, b, c = (g.tensor(f"standin/{name}").view(1, -1, 1, 1) for name in "abc")

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(a * x + b * (t.float() / num_timesteps).view(-1, 1, 1, 1)) + c

    return denoise


def schedule_rows(g: Golden, schedule: NoiseSchedule, prefix: str = "") -> Iterator[Row]:
    for key, name in SCHEDULE_KEYS.items():
        yield g.close(prefix + key, getattr(schedule, name), g[prefix + key], atol=1e-10)
    cumulative = schedule.alphas_cumprod
    for key, value in (
        ("sqrt_alphas_cumprod", cumulative.sqrt()),
        ("sqrt_one_minus_alphas_cumprod", (1 - cumulative).sqrt()),
    ):
        yield g.close(prefix + key, value, g[prefix + key], atol=1e-10)


@covers("diffusion_cosine_*.npz", "diffusion_linear_*.npz")
def processes(g: Golden) -> Iterator[Row]:
    steps = g.scalar("num_timesteps")
    schedule = make_schedule("cosine" if "cosine" in g.name else "linear", steps)
    yield from schedule_rows(g, schedule)
    diffusion = GaussianDiffusion(schedule)
    x0, noise, t = g.tensor("x_start"), g.tensor("noise"), g.tensor("t")
    x_t = diffusion.q_sample(x0, t, noise)
    yield g.close("q_sample", x_t, g["q_sample"], atol=1e-6)
    posterior = diffusion.q_posterior(x0, x_t, t)
    for name, value in zip(("mean", "variance", "log_variance"), posterior, strict=True):
        yield g.close(
            f"q_posterior/{name}", value.expand_as(x0), g[f"q_posterior/{name}"], atol=1e-5
        )
    exact = g.tensor("q_sample")
    # upstream divides by sqrt(1/abar - 1), about 1e-2 at t = 0, in float32
    yield g.close(
        "predict_eps_from_xstart",
        diffusion.predict_eps(exact, t, 0.5 * x0),
        g["predict_eps_from_xstart"],
        atol=1e-4,
        rtol=1e-4,
    )
    yield g.close(
        "predict_xstart_from_eps",
        diffusion.predict_x0(exact, t, noise),
        g["predict_xstart_from_eps"],
        atol=1e-4,
        rtol=1e-4,
    )
    denoise = standin(g, steps)
    found = diffusion.p_mean_variance(denoise(exact, t), exact, t)
    for name, value in (
        ("mean", found.mean),
        ("variance", found.variance),
        ("log_variance", found.log_variance),
        ("pred_xstart", found.x0),
    ):
        yield g.close(
            f"p_mean_variance/{name}", value.expand_as(x0), g[f"p_mean_variance/{name}"], atol=1e-5
        )
    eps_mean = diffusion.p_mean_variance(
        diffusion.predict_x0(exact, t, denoise(exact, t)), exact, t
    ).mean
    yield g.close(
        "eps_model/p_sample_mean", eps_mean, g["eps_model/p_sample_mean"], atol=1e-4, rtol=1e-4
    )
    large = GaussianDiffusion(schedule, sigma_small=False)
    for name in ("variance", "log_variance"):
        value = large.coefficient(name, t, x0).expand_as(x0)
        yield g.close(f"fixed_large/{name}", value, g[f"fixed_large/{name}"], atol=1e-5)
    yield from loops(g, diffusion, denoise)


def loops(g: Golden, diffusion: GaussianDiffusion, denoise: Denoiser) -> Iterator[Row]:
    x, noises = g.tensor("x_T"), g.tensor("step_noise")
    ancestral, ddim = 2e-5, 5e-5 if g.scalar("num_timesteps") <= 100 else 5e-4

    def noise(step: int) -> Tensor:
        return noises[step]

    path: list[Tensor] = []
    sample = sample_ancestral(denoise, diffusion, x, noise, trajectory=path)
    yield g.close("p_sample_loop/sample", sample, g["p_sample_loop/sample"], atol=ancestral)
    # the trajectory steps count executed steps; the schedule may be longer than the file says
    chosen = torch.stack([path[i] for i in g["p_sample_loop/trajectory_steps"]])
    yield g.close("p_sample_loop/trajectory", chosen, g["p_sample_loop/trajectory"], atol=ancestral)
    clipped = sample_ancestral(denoise, diffusion, x, noise, clip=True)
    yield g.close(
        "p_sample_loop/sample_clip_denoised",
        clipped,
        g["p_sample_loop/sample_clip_denoised"],
        atol=ancestral,
    )
    for eta in (0, 1):
        sample = sample_ddim(denoise, diffusion, x, noise, eta=float(eta))
        yield g.close(f"ddim_eta{eta}/sample", sample, g[f"ddim_eta{eta}/sample"], atol=ddim)
    known = Inpainting(g.tensor("inpaint/mask"), g.tensor("inpaint/motion"))
    sample = sample_ancestral(denoise, diffusion, x, noise, inpainting=known)
    yield g.close("inpaint/sample", sample, g["inpaint/sample"], atol=ancestral)
    start = g.scalar("num_timesteps") - g.scalar("skip/skip_timesteps") - 1
    first = diffusion.q_sample(
        g.tensor("skip/init_image"), torch.full((len(x),), start, dtype=torch.long), x
    )
    sample = sample_ancestral(denoise, diffusion, first, noise, start=start)
    yield g.close("skip/sample", sample, g["skip/sample"], atol=ancestral)
    yield g.equal("skip/n_noise_used", start + 1, g["skip/n_noise_used"])
    same = sample_ancestral(denoise, diffusion, x, lambda s: noises[s][:1].expand_as(x))
    yield g.close("const_noise/sample", same, g["const_noise/sample"], atol=ancestral)


@covers("diffusion_respaced*.npz")
def respaced(g: Golden) -> Iterator[Row]:
    x = g.tensor("x_T")
    for i, case in enumerate(g.strings("cases")):
        total = int(g["original_num_steps"][i])
        base = make_schedule("cosine", total)
        steps = select_timesteps(total, str(g["section_counts"][i]))
        schedule = respace(base, steps)
        yield g.equal(f"{case}/timestep_map", schedule.timestep_map, g[f"{case}/timestep_map"])
        yield from schedule_rows(g, schedule, f"{case}/")
        diffusion, noises = GaussianDiffusion(schedule), g.tensor(f"{case}/step_noise")
        denoise = standin(g, total)
        sample = sample_ancestral(denoise, diffusion, x, lambda s, n=noises: n[s])
        yield g.close(f"{case}/p_sample", sample, g[f"{case}/p_sample"], atol=5e-5)
        sample = sample_ddim(denoise, diffusion, x, lambda s, n=noises: n[s])
        yield g.close(f"{case}/ddim_eta0", sample, g[f"{case}/ddim_eta0"], atol=5e-5)
        noised = diffusion.q_sample(x, g.tensor(f"{case}/t"), noises[0])
        yield g.close(f"{case}/q_sample", noised, g[f"{case}/q_sample"], atol=1e-6)


def frames(x: Tensor) -> Tensor:
    """``[B, F, 1, T]`` -> ``[B, T, F]``."""
    return x.squeeze(2).transpose(1, 2)


@covers("diffusion_losses*.npz")
def losses(g: Golden) -> Iterator[Row]:
    steps = g.scalar("num_timesteps")
    diffusion = GaussianDiffusion(make_schedule("cosine", steps))
    x0, t = g.tensor("x_start"), g.tensor("t")
    x_t = diffusion.q_sample(x0, t, g.tensor("noise"))
    yield g.close("x_t", x_t, g["x_t"], atol=1e-6)
    output = standin(g, steps)(x_t, t)
    yield g.close("model_output", output, g["model_output"], atol=2e-6)
    mask = g.tensor("mask").flatten(1)
    error = masked_mse(frames(output), frames(x0), mask)
    yield g.close("rot_mse", error, g["rot_mse"], atol=1e-6, rtol=1e-6)
    yield g.close("mean_loss", error.mean(), g["mean_loss"], atol=1e-6, rtol=1e-6)
    a, b = frames(g.tensor("masked_l2/a")), frames(g.tensor("masked_l2/b"))
    for name, key in (("mask", "out"), ("mask_with_empty_row", "out_with_empty_row")):
        value = masked_mse(a, b, g.tensor(f"masked_l2/{name}").flatten(1))
        yield g.close(f"masked_l2/{key}", value, g[f"masked_l2/{key}"], atol=1e-6, rtol=1e-6)
    step_a, step_b = (x[:, 1:, :-1] - x[:, :-1, :-1] for x in (frames(output), frames(x0)))
    velocity = masked_mse(step_a, step_b, mask[:, 1:])
    yield g.close("vel/vel_mse", velocity, g["vel/vel_mse"], atol=1e-6, rtol=1e-6)
    total = error + g.scalar("vel/lambda_vel") * velocity
    yield g.close("vel/loss", total, g["vel/loss"], atol=1e-6, rtol=1e-6)
    rng = np.random.RandomState(g.scalar("uniform_sampler/numpy_seed"))
    drawn = rng.choice(steps, size=(len(g["uniform_sampler/t"]),), p=np.full(steps, 1 / steps))
    yield g.equal("uniform_sampler/t", drawn, g["uniform_sampler/t"])
