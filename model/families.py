"""From a checkpoint to its family of generators, and to the generator."""

from dataclasses import replace
from pathlib import Path

import torch

from data_loaders.skeleton import Skeleton
from diffusion.sampling import SamplerOptions
from model.checkpoint_files import LIGHTNING, find_checkpoint, read_model_args
from model.latent.assembly import load_mld
from model.latent.checkpoints import FAMILY as LATENT
from model.latent.generator import MLDGenerator
from model.mdm.generator import MDMGenerator, load_mdm
from model.momask.generator import MoMaskGenerator, is_published, load_momask_generator
from model.momask.run_files import FAMILY as MOMASK
from utils.errors import UserError


def load_generator(
    model_path: str | Path,
    device: torch.device | str = "cpu",
    *,
    data_dir: str = "",
    text_encoder_path: str = "",
    sampler: SamplerOptions | None = None,
    guidance: float | None = None,
    autocast: torch.dtype | None = None,
    compiled: bool = False,
    skeleton: Skeleton | None = None,
) -> MDMGenerator | MLDGenerator | MoMaskGenerator:
    """A published or own checkpoint, or the best of a run's folder, ready to sample.

    sampler and guidance: None = as the family samples. skeleton: the one that its motions must
    have. Raises UserError for whatever is missing or does not fit.
    """
    path = Path(model_path)
    generator: MDMGenerator | MLDGenerator | MoMaskGenerator
    if is_published(path) or is_momask(path := find_checkpoint(path)):
        generator = load_momask_generator(path, device, text_encoder_path)
    else:
        load = load_mld if is_latent(path) else load_mdm
        generator = load(path, device, data_dir, text_encoder_path)
    if skeleton is not None and generator.skeleton != skeleton:
        raise UserError(
            f"{path} makes {generator.skeleton.name} motions of "
            f"{generator.skeleton.feature_dim} features, the dataset holds {skeleton.name} motions "
            f"of {skeleton.feature_dim}; pass a matching --dataset"
        )
    chosen = {"sampler": sampler, "guidance": guidance}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return replace(generator, autocast=autocast, compiled=compiled, **chosen)


def is_latent(path: Path) -> bool:
    """Whether a checkpoint is one of latent diffusion, and not of MDM."""
    return path.suffix == LIGHTNING or read_model_args(path).get("family") == LATENT


def is_momask(path: Path) -> bool:
    """Whether a checkpoint of a run is one of MoMask."""
    return path.suffix != LIGHTNING and read_model_args(path).get("family") == MOMASK
