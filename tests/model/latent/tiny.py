"""Tiny untrained networks of latent diffusion, and files as upstream writes them."""

from pathlib import Path

import torch
from torch import Tensor

from model.latent.denoiser import DenoiserConfig, LatentDenoiser
from model.latent.vae import MotionVAE, VAEConfig
from model.text.condition import Condition

FEATURES, TEXT = 5, 7
TRUNK = {"hidden_dim": 16, "ff_size": 24, "layers": 5, "num_heads": 4, "max_positions": 40}
V2 = {"latent_dim": 6, "projected": True}


def tiny_vae(seed: int = 0, **changes) -> MotionVAE:
    torch.manual_seed(seed)
    settings = {"num_features": FEATURES, "latent_tokens": 2, "latent_dim": 16}
    return MotionVAE(VAEConfig(**(TRUNK | settings | changes))).eval()


def tiny_denoiser(seed: int = 0, **changes) -> LatentDenoiser:
    torch.manual_seed(seed)
    settings = {"latent_dim": 16, "text_dim": TEXT, "time_dim": 10}
    return LatentDenoiser(DenoiserConfig(**(TRUNK | settings | changes))).eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text_condition(batch: int, tokens: int = 1, seed: int = 2) -> Condition:
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    return Condition(draw(batch, tokens, TEXT, seed=seed), mask)


def upstream_state(vae: MotionVAE | None, denoiser: LatentDenoiser | None) -> dict[str, Tensor]:
    """Both networks and a part of the evaluators, with upstream's prefixes."""
    state = {"t2m_motionencoder.hidden": torch.zeros(2, 1, 3)}
    for prefix, network in (("vae", vae), ("denoiser", denoiser)):
        if network is not None:
            state |= {f"{prefix}.{key}": value for key, value in network.state_dict().items()}
    return state


def write_upstream(path: Path, vae: MotionVAE | None, denoiser: LatentDenoiser | None) -> Path:
    torch.save({"state_dict": upstream_state(vae, denoiser)}, path)
    return path
