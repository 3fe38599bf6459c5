"""Unpicklers that never run what a file asks for: one refuses it, the other leaves it out."""

import builtins
import pickle
import struct
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from utils.bounded import check_stored
from utils.errors import UserError
from utils.seals import check_seal

# What reading a damaged or crafted pickle raises; RuntimeError comes from torch.
DAMAGE = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    StopIteration,
    MemoryError,
    struct.error,
)


class RefusingUnpickler(pickle._Unpickler):
    """Builds plain lists, dictionaries, strings and numbers, and the few classes of `known`.

    In Python: the one in C takes memory for as many memoised objects as a file announces.
    """

    known: Mapping[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.known[f"{module}.{name}"]


class LeftOut:
    """Stands where a file holds an object of a package; takes its content and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "LeftOut":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "LeftOut":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


# Modules of the standard library whose objects settings are made of. A checkpoint that asks for
# another one carries code.
HARMLESS = {
    *("_codecs", "_operator", "argparse", "collections", "copyreg", "datetime", "decimal", "enum"),
    *("fractions", "functools", "numbers", "operator", "pathlib", "random", "re", "types"),
    *("typing", "uuid"),
}


class TensorUnpickler(RefusingUnpickler):
    """Tensors and plain containers; objects of other packages become `LeftOut`.

    Code of the standard library, for which no checkpoint has a use, is refused instead of left out,
    so that whoever was sent the file learns of it.
    """

    known = {  # noqa: RUF012
        "collections.OrderedDict": OrderedDict,
        "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
        "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
        "torch.Size": torch.Size,
        "torch.device": torch.device,
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in self.known or _is_code(module, name):
            return super().find_class(module, name)
        return LeftOut


def _is_code(module: str, name: str) -> bool:
    # torch.save writes the standard library's names of Python 2
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    if module == "builtins":  # getattr is how methods are pickled
        return name != "getattr" and not isinstance(getattr(builtins, name, None), type)
    package = module.partition(".")[0]
    return package in sys.stdlib_module_names and package not in HARMLESS


def load_tensors_only(path: str | Path) -> Any:
    """The content of a ``torch.save`` file on the CPU, its foreign objects as `LeftOut`.

    For checkpoints of other projects, which hold objects of packages that are not installed here;
    nothing of theirs is imported or run. Raises UserError when the file is missing, damaged, or
    carries code.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist")
    if not zipfile.is_zipfile(path) or is_torchscript(path):
        raise UserError(f"{path} is not a checkpoint of torch.save, or is damaged; fetch it again")
    check_seal(Path(path))
    check_stored(Path(path))
    reader = SimpleNamespace(__name__="tensors", Unpickler=TensorUnpickler)
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
        refuse_expanded(content)
        return content
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} carries code, or is damaged, and is not loaded ({error}); do not use it"
        ) from None
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged, fetch it again ({reason})") from None


def refuse_expanded(content: Any) -> None:
    """Raises ValueError for a tensor that is larger than the numbers it stands on: one number can
    announce a terabyte, which the next copy would take."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if torch.is_tensor(value):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError(f"a tensor of shape {list(value.shape)} repeats its numbers")
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value


def is_torchscript(path: Path) -> bool:
    """Whether `path` is a zip of TorchScript; plain ``torch.save`` files lack its constants."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return False
