"""Checkpoints of latent diffusion: MLD's (2023), MotionLCM's and ours, by upstream's keys.

The weights lie under ``state_dict`` with the prefixes ``vae.`` and ``denoiser.``. All sizes but the
number of attention heads follow from them, as does the variant.
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

# What upstream stores along: its evaluators, and text encoders in files of its early versions.
OTHER_PARTS = ("t2m_textencoder", "t2m_moveencoder", "t2m_motionencoder", "text_encoder")
UNUSED = "mem_pos.pe"  # of the denoisers of 2023 alone; no forward pass reads it


@dataclass(frozen=True)
class LatentWeights:
    """State dicts of the two networks under their own keys, without prefixes; a file of the first
    training stage has no denoiser."""

    path: Path
    vae: Mapping[str, Tensor]
    denoiser: Mapping[str, Tensor]

    @property
    def variant(self) -> str:
        """``mld`` (2023), ``v1`` or ``v2``, by what differs between their keys."""
        if "latent_pre.weight" in self.vae:
            return "v2"
        return "mld" if UNUSED in self.denoiser else "v1"
