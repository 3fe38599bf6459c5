"""Where a script computes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from utils.errors import UserError
from utils.options import option


@dataclass
class DeviceOptions:
    """For every script that runs networks."""

    device: str = option("auto", "auto, cpu, cuda, or a CUDA index", free="always")


def pick_device(device: str, cuda: bool = True) -> torch.device:
    """Raises UserError for a device that this machine lacks."""
    if device == "auto":
        return torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(f"cuda:{device}" if device.isdigit() else device)
    except RuntimeError:
        raise UserError(f"--device {device} is unknown; use auto, cpu, cuda or an index") from None
    if device.isdigit() and not torch.cuda.is_available():
        return torch.device("cpu")  # upstream's default "--device 0" means CPU on such machines
    if chosen.type == "cuda" and not (cuda and torch.cuda.is_available()):
        raise UserError(f"--device {device}: no CUDA device is available; use --device cpu")
    return chosen


def autocast_to(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """A context in which networks compute in `dtype`; None leaves them as they are."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
