"""Tiny untrained checkpoints for the tests of sampling."""

from pathlib import Path

import torch

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import HUMANML, Skeleton
from model.mdm.generator import build_generator
from model.mdm.network import MDMConfig


def write_tiny_checkpoint(folder: Path, seed: int = 0, skeleton: Skeleton = HUMANML) -> Path:
    """An encoder of width 16 with 3 diffusion steps and the built-in text encoder."""
    torch.manual_seed(seed)
    config = MDMConfig(
        text_encoder_type="builtin",
        latent_dim=16,
        ff_size=16,
        layers=1,
        num_heads=2,
        diffusion_steps=3,
        mask_frames=True,
        pos_embed_max_len=200,
    )
    size = skeleton.feature_dim
    stats = Statistics("dataset_stats", torch.zeros(size), torch.full((size,), 0.1))
    generator = build_generator(config, stats, skeleton, "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    return generator.save(folder, 7, None, {"dataset": skeleton.name})
