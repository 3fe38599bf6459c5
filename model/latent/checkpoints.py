"""Checkpoints of latent diffusion: MLD's (2023), MotionLCM's and ours, by upstream's keys.

The weights lie under ``state_dict`` with the prefixes ``vae.`` and ``denoiser.``. The variant and
all sizes but the number of attention heads follow from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.latent.denoiser import DenoiserConfig, LatentDenoiser
from model.latent.vae import MotionVAE, VAEConfig
from model.weights import load_strictly
from utils.errors import UserError
from utils.unpickle import load_tensors_only

# What upstream stores along: its evaluators, and in early files the text encoder.
OTHER_PARTS = ("t2m_textencoder", "t2m_moveencoder", "t2m_motionencoder", "text_encoder")
UNUSED = "mem_pos.pe"  # of the denoisers of 2023 alone; no forward pass reads it

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class LatentWeights:
    """State dicts of the two networks without their prefixes; empty where a file lacks one."""

    path: Path
    vae: State
    denoiser: State

    @property
    def variant(self) -> str:
        """``mld`` (2023), ``v1`` or ``v2``, by what differs between their keys."""
        if "latent_pre.weight" in self.vae:
            return "v2"
        return "mld" if UNUSED in self.denoiser else "v1"


def read_weights(path: str | Path) -> LatentWeights:
    """Tensors of a checkpoint; whatever else it holds is neither imported nor run.

    Raises UserError when the file is missing, damaged, carries code, or holds other networks.
    """
    content = load_tensors_only(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path} is no checkpoint of MLD or MotionLCM: it has no state_dict")
    parts: dict[str, dict[str, Tensor]] = {"vae": {}, "denoiser": {}}
    for key, value in state.items():
        part, _, name = str(key).partition(".")
        if part in parts and torch.is_tensor(value):
            parts[part][name] = value
        elif part not in OTHER_PARTS:
            raise UserError(f"{path} is no checkpoint of MLD or MotionLCM: it holds {key}")
    if not parts["vae"]:
        raise UserError(
            f"{path} holds no motion VAE, without which latents are no motions; name a checkpoint "
            "that holds both networks"
        )
    return LatentWeights(Path(path), **parts)


def load_vae(weights: LatentWeights, num_heads: int = 4, dropout: float = 0.1) -> MotionVAE:
    """The VAE, in eval mode. Raises UserError when its keys do not fit."""
    vae = MotionVAE(vae_config(weights, num_heads, dropout))
    load_strictly(vae, weights.vae, f"{weights.path}: the motion VAE")
    return vae.eval()


def load_denoiser(
    weights: LatentWeights, num_heads: int = 4, dropout: float = 0.1, text_relu: bool | None = None
) -> LatentDenoiser:
    """The denoiser, in eval mode; `text_relu` None: as the variant has it.

    Raises UserError when the file has none, or when it does not fit its keys or the file's VAE.
    """
    if not weights.denoiser:
        raise UserError(
            f"{weights.path} holds a motion VAE without a denoiser, the first stage of training; "
            "name the checkpoint of the second"
        )
    config = denoiser_config(weights, num_heads, dropout, text_relu)
    latents = vae_config(weights).latent_dim
    if config.latent_dim != latents:
        raise UserError(
            f"{weights.path}: the denoiser's latents are {config.latent_dim} wide, those of the "
            f"VAE {latents}; a denoiser needs the VAE that it was trained with"
        )
    denoiser = LatentDenoiser(config)
    state = {key: value for key, value in weights.denoiser.items() if key != UNUSED}
    load_strictly(denoiser, state, f"{weights.path}: the denoiser")
    return denoiser.eval()


def vae_config(weights: LatentWeights, num_heads: int = 4, dropout: float = 0.1) -> VAEConfig:
    """Sizes by the shapes of the weights. Raises UserError when a key is missing."""
    state = _Shapes(weights.vae, f"{weights.path}: the motion VAE")
    hidden, features = state.shape("skel_embedding.weight")
    projected = "latent_pre.weight" in weights.vae
    return VAEConfig(
        **_trunk(state, hidden, "query_pos_encoder.pe"),
        num_heads=num_heads,
        dropout=dropout,
        num_features=features,
        latent_tokens=state.shape("global_motion_token")[0] // 2,
        latent_dim=state.shape("latent_pre.weight")[0] if projected else hidden,
        projected=projected,
    )


def denoiser_config(
    weights: LatentWeights, num_heads: int = 4, dropout: float = 0.1, text_relu: bool | None = None
) -> DenoiserConfig:
    """Sizes by the shapes of the weights; the ReLU before the text leaves no trace in them, so
    None means what was published: with it, but for models with projections."""
    state = _Shapes(weights.denoiser, f"{weights.path}: the denoiser")
    hidden, time = state.shape("time_embedding.linear_1.weight")
    projected, text = "latent_pre.weight" in state.given, "emb_proj.1.weight" in state.given
    guided = "time_embedding.cond_proj.weight" in state.given
    return DenoiserConfig(
        **_trunk(state, hidden, "query_pos.pe"),
        num_heads=num_heads,
        dropout=dropout,
        latent_dim=state.shape("latent_pre.weight")[1] if projected else hidden,
        text_dim=state.shape("emb_proj.1.weight")[1] if text else hidden,
        time_dim=time,
        text_relu=not projected if text_relu is None else text_relu,
        text_projected=text,
        projected=projected,
        guidance_dim=state.shape("time_embedding.cond_proj.weight")[1] if guided else 0,
    )


@dataclass(frozen=True)
class _Shapes:
    given: State
    where: str

    def shape(self, key: str) -> list[int]:
        if key not in self.given:
            raise UserError(f"{self.where} lacks {key}")
        return list(self.given[key].shape)


def _trunk(state: _Shapes, hidden: int, positions: str) -> dict[str, int]:
    """The sizes of the skip transformer: blocks to either side of the middle one are paired."""
    pairs = sum(k.startswith("encoder.linear_blocks.") for k in state.given) // 2
    return {
        "hidden_dim": hidden,
        "ff_size": state.shape("encoder.middle_block.linear1.weight")[0],
        "layers": 2 * pairs + 1,
        "max_positions": state.shape(positions)[0],
    }
