"""From a checkpoint to its family of generators, and to the generator."""

from dataclasses import replace
from pathlib import Path

import torch

from data_loaders.skeleton import Skeleton
from diffusion.sampling import SamplerOptions
from model.mdm.checkpoints import find_checkpoint
from model.mdm.generator import MDMGenerator, load_mdm
from utils.errors import UserError


def load_generator(
    model_path: str | Path,
    device: torch.device | str = "cpu",
    *,
    data_dir: str = "",
    text_encoder_path: str = "",
    sampler: SamplerOptions = SamplerOptions(),
    guidance: float = 2.5,
    autocast: torch.dtype | None = None,
    compiled: bool = False,
    skeleton: Skeleton | None = None,
) -> MDMGenerator:
    """A published or own checkpoint, or the best of a run's folder, ready to sample.

    skeleton: the one that its motions must have. Raises UserError for whatever is missing or does
    not fit.
    """
    path = find_checkpoint(model_path)
    generator = load_mdm(path, device, data_dir, text_encoder_path)
    if skeleton is not None and generator.skeleton != skeleton:
        raise UserError(
            f"{path} makes {generator.skeleton.name} motions of "
            f"{generator.skeleton.feature_dim} features, the dataset holds {skeleton.name} motions "
            f"of {skeleton.feature_dim}; pass a matching --dataset"
        )
    return replace(
        generator, sampler=sampler, guidance=guidance, autocast=autocast, compiled=compiled
    )
