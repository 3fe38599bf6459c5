"""The motions of a file, and of generation, as they are exported."""

from pathlib import Path

import numpy as np
import torch

from data_loaders.features import features_to_joints
from data_loaders.skeleton import SKELETONS, Skeleton, skeleton_for_dim
from export.formats import NamedMotion
from sample.results import Results, load_results
from utils.errors import UserError
from utils.files import read_array


def load_motions(path: str) -> list[NamedMotion]:
    """The motions of a results.npy, or of an array of features or joints.

    Raises UserError when it is missing or something else.
    """
    try:
        array = read_array(path)
    except OSError:
        raise UserError(f"{path} does not exist or is not a readable file") from None
    except ValueError:  # not plain numbers
        return named_results(load_results(path))
    joints, skeleton = _joints_of(path, array)
    return [NamedMotion(Path(path).stem, joints, "", skeleton)]


def _joints_of(path: str, array: np.ndarray) -> tuple[np.ndarray, Skeleton]:
    if array.dtype.kind == "f" and array.ndim == 2 and (found := skeleton_for_dim(array.shape[1])):
        features = torch.from_numpy(array.astype(np.float64))
        return features_to_joints(features, found).numpy(), found
    placed = array.dtype.kind == "f" and array.ndim == 3 and array.shape[2] == 3
    if placed and (found := skeleton_of_joints(array.shape[1])):
        return array, found
    raise UserError(
        f"{path} holds {list(array.shape)} {array.dtype}; export takes a results.npy, features "
        "[T, 263] or [T, 251], or joints [T, 22, 3] or [T, 21, 3]"
    )


def skeleton_of_joints(count: int) -> Skeleton | None:
    return next((s for s in SKELETONS.values() if s.num_joints == count), None)


def named_results(results: Results) -> list[NamedMotion]:
    """Named as generation names its videos: sample00_rep00."""
    joints = results.motion.shape[1]
    skeleton = skeleton_of_joints(joints)
    if skeleton is None:
        raise UserError(f"motions of {joints} joints; export knows those of 22 and 21")
    return [
        NamedMotion(
            f"sample{sample:02d}_rep{repetition:02d}",
            results.joints(row),
            results.text[row],
            skeleton,
        )
        for repetition in range(results.num_repetitions)
        for sample in range(results.num_samples)
        for row in [results.row(sample, repetition)]
    ]


def default_folder(path: str) -> Path:
    return Path(path).absolute().parent / "export"
