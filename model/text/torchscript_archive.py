"""The tensors of a TorchScript archive, read without running anything from it.

The archive is a zip: ``data.pkl`` describes a tree of modules, ``data/N`` holds the bytes of its
tensors. The unpickler below builds plain values, and modules and tensors as bare records; whatever
else the file asks for is refused.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError
from utils.unpickle import DAMAGE, RefusingUnpickler, refuse_expanded

STORAGES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


def read_torchscript(path: Path, skip: re.Pattern[str]) -> dict[str, Tensor]:
    """The parameters, buffers and tensor attributes under the dotted names of ``state_dict``.

    Tensors whose whole name matches `skip` are not read. Raises UserError when the file is damaged
    or asks for more than tensors, modules and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = _read(archive, skip)
        refuse_expanded(tensors)
        return tensors
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and modules, or is damaged, and is not loaded because "
            f"that could run code ({error})"
        ) from None
    except DAMAGE as error:
        raise UserError(f"{path} is damaged, fetch it again ({error})") from None


@dataclass
class _Module:
    """A module of the archive: its attributes, without its class."""

    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.attributes = state


@dataclass(frozen=True)
class _Storage:
    """The bytes ``data/{key}``, as numbers of a type."""

    dtype: torch.dtype
    key: str


@dataclass(frozen=True)
class _TensorRecord:
    """Where a tensor lies; its numbers are read only when they are wanted."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self, archive: zipfile.ZipFile, root: str) -> Tensor:
        member = archive.getinfo(f"{root}data/{self.storage.key}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed")
        content = bytearray(archive.read(member))
        numbers = torch.frombuffer(content, dtype=self.storage.dtype)
        return numbers.as_strided(self.size, self.stride, self.offset)  # checks the bounds


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _TensorRecord:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _TensorRecord(storage, offset, size, stride)


def _untagged(value: Any, *_: Any) -> Any:
    """A list or dictionary that TorchScript has tagged with its type."""
    return value


class _Unpickler(RefusingUnpickler):
    known = {  # noqa: RUF012
        **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
        "torch._utils._rebuild_tensor_v2": _tensor,
        "collections.OrderedDict": dict,
        "torch.device": str,
    }

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch.jit._pickle" and re.fullmatch(r"restore_type_tag|build_\w+list", name):
            return _untagged
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, _count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError(f"an unknown reference {kind!r}")
        return _Storage(dtype, key)


def _read(archive: zipfile.ZipFile, skip: re.Pattern[str]) -> dict[str, Tensor]:
    name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", n))
    with archive.open(name) as file:
        tree = _Unpickler(file).load()
    root = name.removesuffix("data.pkl")
    records = _records(tree, "")
    return {k: r.read(archive, root) for k, r in records.items() if not skip.fullmatch(k)}


def _records(module: _Module, prefix: str) -> dict[str, _TensorRecord]:
    records: dict[str, _TensorRecord] = {}
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            records |= _records(value, f"{prefix}{name}.")
        elif isinstance(value, _TensorRecord):
            records[f"{prefix}{name}"] = value
    return records
