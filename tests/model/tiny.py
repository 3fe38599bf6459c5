"""Tiny untrained networks and generators for the tests of models and of preference training."""

import torch
from torch import Tensor

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from model.mdm.generator import MDMGenerator, build_generator
from model.mdm.network import MDM, MDMConfig
from model.text.encoders import Condition

FEATURES = 5
TEXT_WIDTH = 7


def tiny_config(**changes) -> MDMConfig:
    settings = {
        "text_encoder_type": "builtin",
        "latent_dim": 16,
        "ff_size": 32,
        "layers": 2,
        "num_heads": 2,
        "dropout": 0.0,
        "mask_frames": True,
        "diffusion_steps": 8,
        "pos_embed_max_len": 200,
    }
    return MDMConfig(**(settings | changes))


def tiny_mdm(**changes) -> MDM:
    """An MDM of 5 features and text width 7, in eval mode."""
    torch.manual_seed(0)
    return MDM(tiny_config(**changes), FEATURES, TEXT_WIDTH).eval()


def tiny_stats(skeleton: Skeleton) -> Statistics:
    """Neither zero mean nor unit deviation, so that a missing conversion shows."""
    rng = torch.Generator().manual_seed(5)
    size = skeleton.feature_dim
    mean, spread = torch.randn(size, generator=rng), torch.rand(size, generator=rng)
    return Statistics("dataset_stats", mean, 0.5 + spread)


def tiny_generator(skeleton: Skeleton, seed: int = 0, **changes) -> MDMGenerator:
    torch.manual_seed(seed)
    generator = build_generator(tiny_config(**changes), tiny_stats(skeleton), skeleton, "cpu")
    generator.model.eval()
    return generator


def random_condition(lengths: list[int], seed: int = 1) -> Condition:
    """Token sequences of these lengths with values, not zeros, in the padding."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), max(lengths), TEXT_WIDTH, generator=rng)
    return Condition(tokens, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def random_motion(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
