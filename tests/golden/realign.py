"""ReAlign's step-aware reward: towers, scores, decoder, noising and losses, upstream's numbers."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.gaussian import GaussianDiffusion
from diffusion.schedule import make_schedule
from model.distribution import Distribution
from model.latent.denoiser import timestep_sinusoid
from model.layers import length_mask
from rewards.realign import StepMode
from rewards.realign_losses import RealignLossWeights, realign_losses
from rewards.realign_network import RealignConfig, RealignNetwork
from tests.golden.base import Golden, Row, covers
from tests.upstream_protocols import step_probability

STEP_OF = {"no_step": None, "step": "timestep", "step0": 0}


def network_of(g: Golden) -> RealignNetwork:
    """In eval mode. The tables of positions have as many rows as are recorded."""
    state = g.state_dict()
    config = replace(
        RealignConfig.of_state(state), num_heads=g.scalar("cfg/num_heads"), dropout=0.0
    )
    network = RealignNetwork(config)
    network.load_state_dict(state)
    return network.eval()


def inputs_of(g: Golden, tower: str) -> tuple[Tensor, Tensor]:
    x = g.tensor(f"{tower}/x")
    return x, length_mask(g.tensor(f"{tower}/length"), x.shape[1])


def distribution(
    network: RealignNetwork, g: Golden, tower: str, steps: Tensor | None
) -> Distribution:
    encode = network.motion_distribution if tower == "motion" else network.text_distribution
    return encode(*inputs_of(g, tower), steps)


def steps_of(g: Golden, told: bool, clean: bool = False) -> Tensor | None:
    steps = g.tensor("timestep")
    return (torch.zeros_like(steps) if clean else steps) if told else None


@covers("realign_reward*.npz")
def reward(g: Golden) -> Iterator[Row]:
    network = network_of(g)
    yield from sizes(g, network.config)
    with torch.no_grad():
        yield from towers(g, network)
        yield from scores(g, network)
        yield from noising(g)
        decoded = network.decode(g.tensor("decode/z"), inputs_of(g, "motion")[1])
        yield g.close("decode/out", decoded, g["decode/out"], atol=2e-5)
    yield from guidance(g, network)
    for mode in ("M1T0", "M1T1", "M0T0", "M0T1"):
        if g.has(f"loss/{mode}/total"):
            yield from losses(g, network, mode)


def sizes(g: Golden, config: RealignConfig) -> Iterator[Row]:
    """All that the tensors tell is what the model was built with."""
    names = {
        "nfeats": config.num_features,
        "latent_dim": config.hidden_dim,
        "ff_size": config.ff_size,
        "num_layers": config.layers,
        "text_width": config.text_dim,
        "time_width": config.time_dim,
    }
    for name, found in names.items():
        yield g.equal(f"cfg/{name}", found, g[f"cfg/{name}"])


def towers(g: Golden, network: RealignNetwork) -> Iterator[Row]:
    steps = g.tensor("timestep")
    sinusoid = timestep_sinusoid(steps, network.config.time_dim)
    yield g.close("time_sinusoid", sinusoid, g["time_sinusoid"], atol=2e-5)
    yield g.close("time_embedding", network.embed_steps(steps), g["time_embedding"], atol=2e-5)
    for tower in ("motion", "text"):
        for name, step in STEP_OF.items():
            key = f"{tower}/{name}"
            if not g.has(f"{key}/mu"):
                continue
            told = steps_of(g, told=step is not None, clean=step == 0)
            found = distribution(network, g, tower, told)
            yield g.close(f"{key}/mu", found.mean, g[f"{key}/mu"], atol=2e-5)
            yield g.close(f"{key}/std", (found.logvar / 2).exp(), g[f"{key}/std"], atol=2e-5)
            sampled = found.sample(g.tensor(f"{key}/eps"))
            yield g.close(f"{key}/latent", sampled, g[f"{key}/latent"], atol=2e-5)
    row = g.scalar("motion/step_unpadded/row")
    length = int(g["motion/length"][row])
    alone = network.motion_distribution(
        g.tensor("motion/x")[row : row + 1, :length],
        torch.ones(1, length, dtype=torch.bool),
        steps[row : row + 1],
    )
    yield g.close("motion/step_unpadded/mu", alone.mean[0], g["motion/step_unpadded/mu"], atol=2e-5)


def scores(g: Golden, network: RealignNetwork) -> Iterator[Row]:
    for key in g.keys("score/M"):
        mode = StepMode.parse(key, key)
        motion_steps = steps_of(g, mode.motion, clean=key.endswith("_clean"))
        motions = distribution(network, g, "motion", motion_steps).mean
        texts = distribution(network, g, "text", steps_of(g, mode.text)).mean
        yield g.close(key, F.cosine_similarity(texts, motions), g[key], atol=2e-5)
    motions = F.normalize(distribution(network, g, "motion", g.tensor("timestep")).mean, dim=-1)
    yield g.close("score/motion_motion", motions @ motions.T, g["score/motion_motion"], atol=2e-5)


def noising(g: Golden) -> Iterator[Row]:
    schedule = make_schedule("scaled_linear", len(g["noise/alphas_cumprod"]))
    expected = g["noise/alphas_cumprod"]
    yield g.close("noise/alphas_cumprod", schedule.alphas_cumprod, expected, atol=1e-6)
    noised = GaussianDiffusion(schedule).q_sample(
        g.tensor("motion/x"), g.tensor("timestep"), g.tensor("noise/eps")
    )
    yield g.close("noise/x_t", noised, g["noise/x_t"], atol=2e-5)
    for key in g.keys("noise/step_probability_"):
        yield g.close(key, step_probability(int(key.rsplit("_", 1)[1])), g[key], atol=1e-8)


def guidance(g: Golden, network: RealignNetwork) -> Iterator[Row]:
    motion, mask = inputs_of(g, "motion")
    motion.requires_grad_()
    texts = distribution(network, g, "text", None).mean.detach()
    motions = network.motion_distribution(motion, mask, g.tensor("timestep")).mean
    found = F.cosine_similarity(texts, motions)
    yield g.close("guidance/reward", found, g["guidance/reward"], atol=2e-5)
    (gradient,) = torch.autograd.grad(found.mean(), motion)
    scale = float(np.abs(g["guidance/grad_mean"]).max())
    yield g.close("guidance/grad_mean", gradient, g["guidance/grad_mean"], atol=1e-4 * scale)
    moved = motion + g.scalar("guidance/lambda") * gradient
    largest = float(np.abs(g["guidance/x_new"]).max())
    yield g.close("guidance/x_new", moved, g["guidance/x_new"], atol=1e-4 * max(1.0, largest))


def losses(g: Golden, network: RealignNetwork, mode: str) -> Iterator[Row]:
    key, told = f"loss/{mode}", StepMode.parse(mode, mode)
    network.zero_grad()
    motion, mask = g.tensor("noise/x_t"), inputs_of(g, "motion")[1]
    texts = distribution(network, g, "text", steps_of(g, told.text))
    motions = network.motion_distribution(motion, mask, steps_of(g, told.motion))
    noise = (g.tensor(f"{key}/eps_text"), g.tensor(f"{key}/eps_motion"))
    weights = RealignLossWeights(
        temperature=g.scalar("cfg/temperature"), threshold=g.scalar("cfg/threshold")
    )
    found = realign_losses(
        network, texts, motions, motion, mask, noise, g.tensor("loss/sent_emb"), weights
    )
    for name in ("recons", "kl", "latent", "contrastive", "total"):
        value = getattr(found, name)
        yield g.close(f"{key}/{name}", value, g[f"{key}/{name}"], atol=2e-5, rtol=2e-5)
    found.total.backward()
    named = dict(network.named_parameters())
    for gradient in g.keys(f"{key}/grad/"):
        parameter = named[gradient.split("/grad/")[1]]
        unused = torch.zeros_like(parameter)  # the step's layers, where no tower is told it
        actual = unused if parameter.grad is None else parameter.grad
        yield g.close(gradient, actual, g[gradient], atol=1e-4)


@covers("realign_checkpoints*.json")
def full_size(g: Golden) -> Iterator[Row]:
    """Every key and shape of the published layout, nothing besides, and one norm for two towers."""
    for name, variant in g.json["variants"].items():
        with torch.device("meta"):
            network = RealignNetwork(RealignConfig(num_features=variant["nfeats"]))
        state = network.state_dict()
        found = {key: list(value.shape) for key, value in state.items()}
        yield g.equal(f"{name}: keys", sorted(found), sorted(variant["shapes"]))
        wrong = [key for key, shape in variant["shapes"].items() if found.get(key) != shape]
        yield g.equal(f"{name}: keys of another shape", wrong, [])
        count = sum(p.numel() for p in network.parameters())
        yield g.equal(f"{name}: parameters", count, variant["parameters"])
        modules = dict(network.named_parameters(remove_duplicate=False))
        for one, other in g.json["shared_tensors"]:
            yield g.equal(f"{name}: {one} is shared", modules[one] is modules[other], True)
        sizes_found = RealignConfig.of_state(state)
        yield g.equal(f"{name}: sizes from tensors", sizes_found == network.config, True)
