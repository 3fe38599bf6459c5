"""Reading and writing that never leaves a half-written file behind and never executes code."""

import json
import os
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.errors import UserError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, so writers that choose a format by it work unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp is private; give the usual permissions
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=4, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Raises UserError when the file is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None


def read_array(path: str | Path) -> np.ndarray:
    """One ``.npy`` array of plain numbers.

    Raises FileNotFoundError, and ValueError when the file is damaged or holds anything else.
    """
    with open(path, "rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def save_tensors(path: str | Path, value: Any) -> None:
    """`torch.save` through a temporary file."""
    with atomic_write(path) as temporary:
        torch.save(value, temporary)


def load_tensors(path: str | Path, map_location: str | torch.device = "cpu") -> Any:
    """Load a file of tensors and plain containers without executing code from it.

    Raises UserError when the file is missing, damaged, or holds other objects.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} holds more than tensors and plain containers, or is damaged, and is not "
            f"loaded because that could run code ({reason})"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path} is not a readable checkpoint ({error})") from None


def check_output_dir(
    path: str | Path, overwrite: bool = False, resume: bool = False, option: str = "--save_dir"
) -> Path:
    """The folder `path` for a run's outputs; it is made by what is written first.

    A folder that already holds files is accepted only with `overwrite` or `resume`. Raises
    UserError otherwise, and where nothing can be written.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{option} {path} is a file; name a folder")
    if path.is_dir() and any(path.iterdir()) and not (overwrite or resume):
        raise UserError(
            f"{option} {path} already holds files; add --overwrite or --resume, or name another"
        )
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(f"{option} {path}: nothing can be written into {there}; name another")
    return path


def prepare_output_dir(
    path: str | Path, overwrite: bool = False, resume: bool = False, option: str = "--save_dir"
) -> Path:
    """Make the folder that `check_output_dir` accepts; nothing in it is deleted."""
    path = check_output_dir(path, overwrite, resume, option)
    path.mkdir(parents=True, exist_ok=True)
    return path
