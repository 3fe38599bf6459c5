"""A new generator in one file: one-step denoising of points in the plane, behind the seam.

docs/architecture.md follows this file. Raw samples are points ``[B, 2]``, its own space is those
points halved, and level t of `levels` keeps the share 1 - (t + 1) / (levels + 1) of the signal.
"""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.skeleton import Skeleton
from model.seam import Samples
from model.text.condition import Condition


@dataclass
class PointGenerator:
    model: nn.Module
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    levels: int = 10
    skeleton: Skeleton | None = None
    padded_frames: int | None = None
    predicts: str = "x0"
    usual_candidates: int = 4

    @staticmethod
    def new(seed: int) -> "PointGenerator":
        torch.manual_seed(seed)
        return PointGenerator(nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 2)))

    def encode_text(self, captions: list[str]) -> Condition:
        return Condition(torch.zeros(len(captions), 1, 1), torch.ones(len(captions), 1).bool())

    def encode(self, raw: Samples, rng: torch.Generator | None = None) -> Samples:
        return Samples(raw.x / 2)

    def decode(self, samples: Samples) -> Samples:
        return Samples(samples.x * 2)

    def noise(self, samples: Samples, rng: torch.Generator | None) -> Tensor:
        return torch.randn(samples.x.shape, generator=rng)

    def error(self, samples: Samples, t: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        share = self.signal(t).unsqueeze(1)
        x_t = share * samples.x + (1 - share) * noise
        return (self._denoise(x_t, t) - samples.x).square().mean(dim=1)

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.model(torch.cat([x_t, self.signal(t).unsqueeze(1)], dim=1))

    @torch.no_grad()
    def sample(
        self, condition: Condition, like: Samples, rng: torch.Generator | None, start: float = 1.0
    ) -> Samples:
        t = torch.full((len(like),), max(0, round(start * self.levels) - 1))
        share = self.signal(t).unsqueeze(1)
        x_t = share * like.x * (start < 1) + (1 - share) * self.noise(like, rng)
        return Samples(self._denoise(x_t, t))

    def signal(self, t: Tensor) -> Tensor:
        return 1 - (t + 1) / (self.levels + 1)

    def frozen(self) -> "PointGenerator":
        return replace(self, model=copy.deepcopy(self.model).requires_grad_(False))

    def save(
        self, folder: Path, step: int, average: nn.Module | None, args: dict[str, Any]
    ) -> Path:
        path = folder / f"model{step:09d}.pt"
        torch.save((average or self.model).state_dict(), path)
        return path
