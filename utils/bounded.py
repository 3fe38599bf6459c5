"""Reading files of strangers: what they announce is compared with what they hold, before memory is
taken for it."""

import gzip
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import yaml

from utils.errors import UserError

YAML_BYTES = 2**18  # of a file of options; those of this project have up to 8 KB
HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(file: BinaryIO) -> np.ndarray:
    """The ``.npy`` array of plain numbers that begins where `file` stands.

    Raises ValueError when it is damaged, holds anything else, or announces more than the file has.
    """
    start = file.tell()
    try:
        version = np.lib.format.read_magic(file)
        if version not in HEADER_READERS:
            raise ValueError(f"format {version} is unknown")
        shape, _, kind = HEADER_READERS[version](file)
    except (SyntaxError, tokenize.TokenError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"its header is damaged ({type(error).__name__})") from None
    if kind.kind not in "fiub":
        raise ValueError(f"it holds {kind}, no plain numbers")
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    there = file.seek(0, 2) - file.seek(start)
    if math.prod(shape) * kind.itemsize > there:
        raise ValueError(f"it announces numbers of shape {shape}, which the file does not hold")
    return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(path: Path, names: tuple[str, ...], largest: int) -> dict[str, np.ndarray]:
    """Some arrays of an ``.npz`` archive, each of `largest` bytes at most.

    Raises OSError, ValueError, KeyError or `zipfile.BadZipFile` when they are not there, are
    damaged or larger.
    """
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in names:
            member = archive.getinfo(f"{name}.npy")
            if member.file_size > largest:
                raise ValueError(f"{name} has {member.file_size} bytes, more than {largest}")
            try:
                with archive.open(member) as file:
                    arrays[name] = read_npy(file)
            except (zlib.error, NotImplementedError, RuntimeError) as error:
                raise ValueError(f"{name} cannot be unpacked ({error})") from None
    return arrays


def check_stored(path: Path) -> None:
    """Raises UserError for a zip archive whose members are larger than itself: ``torch.save``
    compresses nothing, and a small file could otherwise take all memory."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path} is not a readable checkpoint ({error})") from None
    if unpacked > path.stat().st_size:
        raise UserError(f"{path} is compressed, which torch.save never does, and is not loaded")


def gunzip(path: Path, largest: int) -> bytes:
    """The content of a ``.gz`` file.

    Raises OSError, EOFError, ValueError or `zlib.error` when it is damaged or larger than
    `largest` bytes.
    """
    with gzip.open(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it unpacks to more than {largest} bytes")
    return content


class _PlainLoader(yaml.SafeLoader):
    """Plain values; without aliases, of which a few lines unfold to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it repeats a part by an alias (*name); write the part out")
        return super().compose_node(parent, index)


def read_yaml(path: Path, where: str) -> Any:
    """Plain values of a YAML file.

    Raises UserError, which begins with `where`, when it is missing, too large, or no plain YAML.
    """
    try:
        if path.stat().st_size > YAML_BYTES:
            raise UserError(f"{where} has more than {YAML_BYTES} bytes; is it a file of options?")
        return yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is not valid YAML ({reason})") from None
