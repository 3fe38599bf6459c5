"""Per-feature statistics as named objects, so that one pair is never mistaken for another.

``dataset_stats``: Mean.npy / Std.npy, the space of the generator. ``evaluator_stats``: the pair
that the co-embedding evaluators were trained with. ``reward_stats``: TMR's own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from data_loaders.features import feature_slices
from data_loaders.skeleton import Skeleton
from utils.bounded import read_npz
from utils.errors import UserError
from utils.files import atomic_write, read_array
from utils.seals import check_seal

MAX_BYTES = 2**20  # of one vector: 100,000 features


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation ``[D]``; `eps` is added to the deviation when dividing."""

    name: str
    mean: Tensor
    std: Tensor
    eps: float = 0.0

    @property
    def feature_dim(self) -> int:
        return len(self.mean)

    def normalize(self, x: Tensor) -> Tensor:
        """(x - mean) / std for ``[..., D]``, computed in the statistics' type, returned in x's."""
        mean, std = self.mean.to(x.device), self.std.to(x.device)
        return ((x - mean) / (std + self.eps)).to(x.dtype)

    def denormalize(self, x: Tensor) -> Tensor:
        """x * std + mean for ``[..., D]``, returned in x's type."""
        mean, std = self.mean.to(x.device), self.std.to(x.device)
        return (x * (std + self.eps) + mean).to(x.dtype)

    def to(self, device: torch.device | str) -> "Statistics":
        return Statistics(self.name, self.mean.to(device), self.std.to(device), self.eps)

    def save(self, folder: Path) -> None:
        """Write Mean.npy and Std.npy (float32)."""
        for name, value in (("Mean.npy", self.mean), ("Std.npy", self.std)):
            with atomic_write(folder / name) as temporary:
                np.save(temporary, value.cpu().numpy().astype(np.float32))

    def save_together(self, path: Path) -> None:
        """Write both as one ``.npz``."""
        with atomic_write(path) as temporary:
            np.savez(temporary, mean=self.mean.cpu().numpy(), std=self.std.cpu().numpy())

    @staticmethod
    def load_together(path: Path, name: str) -> "Statistics":
        """What `save_together` wrote. Raises UserError when the file is damaged."""
        try:
            check_seal(path)
            found = read_npz(path, ("mean", "std"), MAX_BYTES)
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise UserError(f"{path} is damaged ({error}); copy it from the run again") from None
        mean, std = (torch.from_numpy(found[key]) for key in ("mean", "std"))
        return Statistics(name, mean, std).checked(str(path))

    @staticmethod
    def load(mean_path: Path, std_path: Path, name: str, eps: float = 0.0) -> "Statistics":
        """Raises UserError when a file is missing, of another shape, or not finite."""
        mean, std = _load_vector(mean_path), _load_vector(std_path)
        return Statistics(name, mean, std, eps).checked(f"{mean_path} and {std_path}")

    def checked(self, where: str) -> "Statistics":
        """These statistics, where they can normalise anything.

        Raises UserError, which begins with `where`, unless mean and deviation are finite vectors of
        one length and the deviation is positive.
        """
        for what, value in (("mean", self.mean), ("standard deviation", self.std)):
            if not torch.is_tensor(value) or value.dim() != 1 or not value.is_floating_point():
                raise UserError(f"{where}: the {what} is no vector of numbers")
            if not value.isfinite().all():
                raise UserError(f"{where}: the {what} holds NaN or infinity")
        if self.mean.shape != self.std.shape:
            raise UserError(f"{where} hold vectors of different length")
        if not (self.std > 0).all():
            raise UserError(f"{where}: a standard deviation is not positive")
        return self


def convert(x: Tensor, source: Statistics, target: Statistics) -> Tensor:
    """Features ``[..., D]`` normalised by `source`, normalised by `target` instead."""
    return target.normalize(source.denormalize(x))


def compute_statistics(
    motions: Iterable[np.ndarray], skeleton: Skeleton, name: str = "dataset_stats"
) -> Statistics:
    """Statistics of un-normalised features ``[T, D]`` as HumanML3D publishes them.

    The deviation is averaged within each group of columns, so that joints keep their proportions.
    A group that never moves (deviation 0) gets 1.
    """
    plain = plain_statistics(motions, name)
    std = plain.std.clone()
    for columns in vars(feature_slices(skeleton)).values():
        group = plain.std[columns].mean()
        std[columns] = group if group > 0 else 1.0
    return Statistics(name, plain.mean, std)


def plain_statistics(
    motions: Iterable[np.ndarray], name: str = "reward_stats", eps: float = 0.0
) -> Statistics:
    """Mean and standard deviation per feature over all rows of ``[T, D]`` arrays."""
    count, total, squares = 0, 0.0, 0.0
    for motion in motions:
        rows = np.asarray(motion, dtype=np.float64)
        count += len(rows)
        total = total + rows.sum(axis=0)
        squares = squares + np.square(rows).sum(axis=0)
    if count == 0:
        raise ValueError("statistics need at least one motion")
    mean = total / count
    variance = squares / count - np.square(mean)
    variance[variance < 1e-12 * squares / count] = 0.0  # a constant leaves a rest of rounding
    std = np.sqrt(variance)
    return Statistics(name, _float(mean), _float(std), eps)


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _load_vector(path: Path) -> Tensor:
    try:
        values = read_array(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; the dataset folder is incomplete") from None
    except ValueError as error:
        raise UserError(f"{path} is not a readable .npy file ({error})") from None
    if values.ndim != 1 or not np.isfinite(values).all():
        raise UserError(f"{path} must hold one finite vector, found shape {values.shape}")
    try:
        return torch.from_numpy(np.ascontiguousarray(values))
    except TypeError:
        raise UserError(f"{path} holds {values.dtype}, which is no number type here") from None
