"""The seam between preference optimisation and any generator.

A generator has a space of its own, in which it is trained and sampled (MDM: normalised features;
latent models: the VAE's tokens; images: latents), and the raw space that datasets hold and that
rewards, figures and people read. `encode` and `decode` lead from one to the other, so the
generator alone owns its normalisation. Sampler, steps and guidance are set where it is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from data_loaders.skeleton import Skeleton
from model.text.condition import Condition
from utils.masks import length_mask


@dataclass(frozen=True)
class Samples:
    """B samples of one space: x ``[B, ...]``, and lengths ``[B]`` in frames (None for images)."""

    x: Tensor
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> "Samples":
        return Samples(self.x[rows], None if self.lengths is None else self.lengths[rows])

    def repeat_interleave(self, k: int) -> "Samples":
        """Every sample k times in a row: ``[B*k, ...]``."""
        lengths = None if self.lengths is None else self.lengths.repeat_interleave(k)
        return Samples(self.x.repeat_interleave(k, dim=0), lengths)

    @staticmethod
    def cat(parts: Sequence["Samples"]) -> "Samples":
        """Samples of one shape, one after the other."""
        lengths = [part.lengths for part in parts if part.lengths is not None]
        return Samples(torch.cat([p.x for p in parts]), torch.cat(lengths) if lengths else None)

    def to(self, device: torch.device | str) -> "Samples":
        return Samples(self.x.to(device), None if self.lengths is None else self.lengths.to(device))

    @property
    def frames(self) -> Tensor:
        """The lengths ``[B]`` of motions. Raises ValueError for samples that have none."""
        if self.lengths is None:
            raise ValueError("these samples have no lengths")
        return self.lengths

    @property
    def mask(self) -> Tensor:
        """``[B, T]`` of motions ``[B, T, D]``, True = valid."""
        return length_mask(self.frames, self.x.shape[1])


class Generator(Protocol):
    """What preference optimisation needs of a generator."""

    model: nn.Module  # what is tuned; with adapters only these need gradients
    device: torch.device

    @property
    def levels(self) -> int:
        """T of Eq. 17: the number of noise levels, of which level 0 has the least noise."""

    @property
    def skeleton(self) -> Skeleton | None:
        """Of the raw motions; None where they are none."""

    @property
    def padded_frames(self) -> int | None:
        """Frames that raw training batches must have; None: any, as padding is masked."""

    @property
    def predicts(self) -> str:
        """What `error` is an error of: ``x0``, ``noise`` or ``tokens``."""

    @property
    def usual_candidates(self) -> int:
        """K, the samples that preference optimisation draws per caption unless told otherwise."""

    def encode_text(self, captions: list[str]) -> Condition: ...

    def encode(self, raw: Samples, rng: torch.Generator | None = None) -> Samples:
        """Raw samples in the generator's own space; only a random encoder draws from `rng`."""

    def decode(self, samples: Samples) -> Samples:
        """Back to the raw space."""

    def noise(self, samples: Samples, rng: torch.Generator | None) -> Tensor:
        """The noise of one training step for these samples, to be shared by winner and loser."""

    def error(self, samples: Samples, t: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """What training minimises ``[B]``, of samples noised to the levels t ``[B]``."""

    def sample(
        self,
        condition: Condition,
        like: Samples,
        rng: torch.Generator | None,
        start: float = 1.0,
    ) -> Samples:
        """New samples with the lengths and the padding of `like`, without gradient.

        With `start` < 1 they begin as `like` noised to that share of the levels (after SDEdit,
        Meng et al. 2022).
        """

    def signal(self, t: Tensor) -> Tensor:
        """Share of the signal that is left at the levels t ``[B]``, in [0, 1]."""

    def frozen(self) -> "Generator":
        """The reference: the same weights, which no training changes."""

    def save(
        self, folder: Path, step: int, average: nn.Module | None, args: dict[str, Any]
    ) -> Path:
        """Write a checkpoint that `model.families.load_generator` reads; returns its path."""


class MotionGenerator(Generator, Protocol):
    """A generator of motions, for figures and pictures."""

    @property
    def skeleton(self) -> Skeleton:
        """Of the raw motions."""

    def blank(self, lengths: Tensor) -> Samples:
        """Samples of these lengths ``[B]`` with nothing in them, for `sample` to be like."""
