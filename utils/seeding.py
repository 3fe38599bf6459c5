"""One seeding call, and explicit generators where a draw must not depend on anything else."""

import random
from dataclasses import dataclass

import numpy as np
import torch

from utils.options import option


@dataclass
class SeedOptions:
    """For every script that draws."""

    seed: int = option(10, "seed of every random draw", minimum=0)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's legacy global state and PyTorch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries still read the global state
    torch.manual_seed(seed)


def torch_generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)
