"""Checkpoints of latent diffusion: MLD's (2023), MotionLCM's and ours, by upstream's keys.

The weights lie under ``state_dict`` with the prefixes ``vae.`` and ``denoiser.``. The variant and
all sizes but the number of attention heads follow from them. Ours are named like MDM's and have an
``args.json`` and a ``stats.npz`` beside them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from diffusion.schedule import ScheduleOptions
from model.latent.denoiser import DenoiserConfig, LatentDenoiser
from model.latent.vae import MotionVAE, VAEConfig
from model.single_file import is_single_file, read_single_state
from model.text.encoders import KINDS
from model.weights import load_strictly
from utils.errors import UserError
from utils.files import save_tensors, write_json
from utils.options import from_record, option, with_default
from utils.provenance import provenance
from utils.unpickle import load_tensors_only

FAMILY = "latent"  # how args.json names it
# What upstream stores along: its evaluators, and in early files the text encoder.
OTHER_PARTS = ("t2m_textencoder", "t2m_moveencoder", "t2m_motionencoder", "text_encoder")
AVERAGE = "state_dict_avg"
UNUSED = "mem_pos.pe"  # of the denoisers of 2023 alone; no forward pass reads it

State = Mapping[str, Tensor]


@dataclass
class LatentSettings(ScheduleOptions):
    """What the weights of a latent diffusion model do not tell; stored in ``args.json``."""

    text_encoder_type: str = option("sentence_t5", "text encoder", choices=KINDS)
    pooled_text: bool = option(True, "one vector per caption, as published, not one per word")
    text_relu: bool = option(True, "a ReLU before the text's linear layer (not in MotionLCM v2)")
    num_heads: int = option(4, "attention heads", minimum=1, maximum=256)
    dropout: float = option(0.1, "dropout in training", minimum=0, maximum=0.99)
    cond_mask_prob: float = option(0.1, "share of captions dropped in training", minimum=0)
    noise_schedule: str = with_default("scaled_linear")


# Of the published checkpoints, which state nothing.
PUBLISHED = {
    "mld": LatentSettings(text_encoder_type="clip_large"),
    "v1": LatentSettings(),
    "v2": LatentSettings(text_relu=False),
}


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


def read_weights(path: str | Path, use_ema: bool = True) -> LatentWeights:
    """Tensors of a checkpoint; whatever else it holds is neither imported nor run.

    Of ours that hold averaged weights as well, these, with `use_ema`.

    Raises UserError when the file is missing, damaged, carries code, or holds other networks.
    """
    if is_single_file(path):
        content: Any = {"state_dict": read_single_state(Path(path))}
    else:
        content = load_tensors_only(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if use_ema and isinstance(state, dict):
        state = content.get(AVERAGE, state)
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


def load_vae(weights: LatentWeights, settings: LatentSettings) -> MotionVAE:
    """The VAE, in eval mode. Raises UserError when its keys do not fit."""
    vae = MotionVAE(vae_config(weights, settings))
    load_strictly(vae, weights.vae, f"{weights.path}: the motion VAE")
    return vae.eval()


def load_denoiser(weights: LatentWeights, settings: LatentSettings) -> LatentDenoiser:
    """The denoiser, in eval mode.

    Raises UserError when the file has none, or when it does not fit its keys or the file's VAE.
    """
    if not weights.denoiser:
        raise UserError(
            f"{weights.path} holds a motion VAE without a denoiser, the first stage of training; "
            "name the checkpoint of the second"
        )
    config, latents = denoiser_config(weights, settings), vae_config(weights, settings).latent_dim
    if config.latent_dim != latents:
        raise UserError(
            f"{weights.path}: the denoiser's latents are {config.latent_dim} wide, those of the "
            f"VAE {latents}; a denoiser needs the VAE that it was trained with"
        )
    denoiser = LatentDenoiser(config)
    state = {key: value for key, value in weights.denoiser.items() if key != UNUSED}
    load_strictly(denoiser, state, f"{weights.path}: the denoiser")
    return denoiser.eval()


def vae_config(weights: LatentWeights, settings: LatentSettings) -> VAEConfig:
    """Sizes by the shapes of the weights. Raises UserError when a key is missing."""
    state = _Shapes(weights.vae, f"{weights.path}: the motion VAE")
    hidden, features = state.shape("skel_embedding.weight")
    projected = "latent_pre.weight" in weights.vae
    return VAEConfig(
        **_trunk(state, hidden, "query_pos_encoder.pe"),
        num_heads=settings.num_heads,
        dropout=settings.dropout,
        num_features=features,
        latent_tokens=state.shape("global_motion_token")[0] // 2,
        latent_dim=state.shape("latent_pre.weight")[0] if projected else hidden,
        projected=projected,
    )


def denoiser_config(weights: LatentWeights, settings: LatentSettings) -> DenoiserConfig:
    """Sizes by the shapes of the weights. Raises UserError when a key is missing."""
    state = _Shapes(weights.denoiser, f"{weights.path}: the denoiser")
    hidden, time = state.shape("time_embedding.linear_1.weight")
    projected, text = "latent_pre.weight" in state.given, "emb_proj.1.weight" in state.given
    guided = "time_embedding.cond_proj.weight" in state.given
    return DenoiserConfig(
        **_trunk(state, hidden, "query_pos.pe"),
        num_heads=settings.num_heads,
        dropout=settings.dropout,
        latent_dim=state.shape("latent_pre.weight")[1] if projected else hidden,
        text_dim=state.shape("emb_proj.1.weight")[1] if text else hidden,
        time_dim=time,
        text_relu=settings.text_relu,
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


def read_settings(weights: LatentWeights, args: Mapping[str, Any]) -> LatentSettings:
    """By ``args.json``; what it lacks is as published for the variant that the keys tell."""
    return from_record(LatentSettings, asdict(PUBLISHED[weights.variant]) | args, "args.json")


def save_checkpoint(
    folder: Path,
    step: int,
    networks: Mapping[str, nn.Module],
    stats: Statistics,
    settings: LatentSettings,
    average: nn.Module | None = None,
    args: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``model{step:09d}.pt``, ``args.json`` and ``stats.npz``; returns the model's path.

    networks: ``vae`` and, after the second stage, ``denoiser``. `average` holds averaged weights of
    the last one, which are stored beside it.
    """
    content = {"state_dict": prefixed(networks)}
    if average is not None:
        content[AVERAGE] = prefixed({**networks, list(networks)[-1]: average})
    everything = {**(args or {}), **asdict(settings), "family": FAMILY}
    write_json(folder / "args.json", {**everything, "provenance": provenance()})
    stats.save_together(folder / "stats.npz")
    path = folder / f"model{step:09d}.pt"
    save_tensors(path, content)
    return path


def prefixed(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """One state dict with upstream's prefixes, on the CPU."""
    return {
        f"{name}.{key}": value.detach().cpu()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
