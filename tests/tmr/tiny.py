"""A tiny untrained TMR with the built-in text encoder."""

import torch

from data_loaders.normalizer import Statistics
from model.text.encoders import BuiltinEncoder, CachedTextEncoder
from tmr.model import STATS_EPS, TMR, TMRConfig

FEATURES = 6


def tiny_tmr(seed: int = 0, features: int = FEATURES, dropout: float = 0.0) -> TMR:
    """Statistics are neither 0 nor 1, so that a missing or doubled conversion shows."""
    torch.manual_seed(seed)
    config = TMRConfig(
        text_encoder_type="builtin",
        latent_dim=16,
        ff_size=32,
        layers=2,
        num_heads=2,
        dropout=dropout,
    )
    rng = torch.Generator().manual_seed(5)
    mean = torch.randn(features, generator=rng)
    std = 0.3 + torch.rand(features, generator=rng)
    stats = Statistics("reward_stats", mean, std, STATS_EPS)
    return TMR(config, stats, CachedTextEncoder(BuiltinEncoder())).eval()
