"""A checkpoint as one ``.safetensors`` file, which cannot hold code.

Tensors keep their keys. The metadata holds ``args`` (the content of ``args.json``), ``mean`` and
``std`` (the generator's statistics), each as JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_loaders.normalizer import Statistics
from utils.errors import UserError
from utils.files import atomic_write
from utils.seals import ROOM, check_seal

SUFFIX = ".safetensors"
DAMAGE = (SafetensorError, OSError, OverflowError, MemoryError)  # what reading a file raises


def is_single_file(path: str | Path) -> bool:
    return Path(path).suffix == SUFFIX


def write_single_file(
    path: Path, state: Mapping[str, Tensor], args: dict[str, Any], stats: Statistics
) -> None:
    """Write atomically; float32 statistics survive the decimal form exactly."""
    metadata = {
        "format": "pt",
        "args": json.dumps(args, sort_keys=True),
        "mean": json.dumps(stats.mean.tolist()),
        "std": json.dumps(stats.std.tolist()),
        **ROOM,
    }
    # Two keys of MDM share the positional table, and safetensors refuses shared memory.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata)


def read_single_args(path: Path) -> dict[str, Any]:
    """Raises UserError when the file is missing, damaged, or no exported checkpoint."""
    return _read_metadata(path, "args")[0]


def read_single_stats(path: Path) -> Statistics:
    """Raises UserError when the file is missing, damaged, or no exported checkpoint."""
    try:
        mean, std = (torch.tensor(numbers) for numbers in _read_metadata(path, "mean", "std"))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise UserError(f"{path}: its statistics are no vectors of numbers") from None
    return Statistics("dataset_stats", mean, std).checked(str(path))


def read_single_state(path: Path) -> dict[str, Tensor]:
    """Raises UserError when the file is missing or damaged."""
    try:
        check_seal(path)
        return load_file(path)
    except DAMAGE as error:
        raise UserError(f"{path} is not a readable .safetensors file ({error})") from None


def _read_metadata(path: Path, *keys: str) -> list[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return [json.loads(metadata[key]) for key in keys]
    except DAMAGE as error:
        raise UserError(f"{path} is not a readable .safetensors file ({error})") from None
    except (KeyError, ValueError, RecursionError):
        raise UserError(
            f"{path} lacks the arguments or statistics of its model; make it with: python -m "
            "model.export"
        ) from None
