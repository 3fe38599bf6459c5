"""Where a script computes."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from utils.errors import UserError
from utils.options import option


@dataclass
class DeviceOptions:
    """For every script that runs networks."""

    device: str = option("auto", "auto, cpu, cuda, or a CUDA index", free="always")


@dataclass
class CudaOptions(DeviceOptions):
    """For the scripts that upstream has as well."""

    cuda: bool = option(True, "false forces the CPU", free="always")


def pick_device(device: str, cuda: bool = True) -> torch.device:
    """Raises UserError for a device that this machine lacks."""
    if device == "auto":
        return torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu")
    found = re.fullmatch(r"cpu|cuda|(?:cuda:)?(\d{1,3})", device)
    if found is None:
        raise UserError(f"--device {device} is unknown; use auto, cpu, cuda or an index")
    if device == "cpu":
        return torch.device("cpu")
    if not (cuda and torch.cuda.is_available()):
        if device.isdigit():
            return torch.device("cpu")  # upstream's default "--device 0" means CPU there
        raise UserError(f"--device {device}: no CUDA device is available; use --device cpu")
    index, count = found.group(1), torch.cuda.device_count()
    if index is not None and int(index) >= count:
        raise UserError(f"--device {device}: there are {count} CUDA devices, the first of them 0")
    return torch.device("cuda" if index is None else f"cuda:{int(index)}")


def autocast_to(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """A context in which networks compute in `dtype`; None leaves them as they are."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def sampling(
    model: nn.Module, device: torch.device, dtype: torch.dtype | None = None
) -> Iterator[None]:
    """A context in which `model` samples: in eval mode, in `dtype`."""
    was_training = model.training
    model.eval()
    with autocast_to(device, dtype):
        yield
    # The weights that were cast without gradient would serve a loss in the same autocast
    torch.clear_autocast_cache()
    model.train(was_training)
