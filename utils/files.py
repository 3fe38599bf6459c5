"""Reading and writing that never leaves a half-written file behind and never executes code.

What is written here carries its SHA-256 (utils/seals.py), which the functions that read check.
"""

import json
import os
import pickle
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.bounded import check_stored, read_npy
from utils.errors import UserError
from utils.owners import is_left_behind, own_name
from utils.seals import JSON_KEY, check_seal, seal
from utils.unpickle import DAMAGE, refuse_expanded

LOCK = "run.lock"  # of `utils.locks`, which is no output
TEMPORARY = re.compile(r"\..+\.partial\.(.+\.\d+)-\w{8}(?:\.\w+)?")  # and whose it is
JSON_BYTES = 2**26  # the annotations of 100,000 captions have 15 MB


@contextmanager
def atomic_write(path: str | Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, so writers that choose a format by it work unchanged. The
    file is sealed, and on the disk before it takes its name. previous: the name that an older file
    takes instead of being replaced; a kill between the two renames leaves it there alone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.stem}.partial.{own_name()}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        seal(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp is private; give the usual permissions
        sync(temporary)
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed had half written in `folder` and below."""
    for path in list(folder.rglob(".*.partial.*")):
        match = TEMPORARY.fullmatch(path.name)
        if match and path.is_file() and is_left_behind(path, match.group(1)):
            path.unlink(missing_ok=True)


def member(folder: Path, name: object, source: Path) -> Path:
    """What is called `name` in `folder`, where the file `source` says so.

    Raises UserError for a name that leads out of the folder.
    """
    if not isinstance(name, str) or Path(name).name != name or name == "..":
        raise UserError(f"{source} names {name!r}, which is no name in {folder}; do not use it")
    return folder / name


def write_text(path: str | Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=4, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Raises UserError when the file is missing, is not JSON, or is not as it was written."""
    try:
        if Path(path).stat().st_size > JSON_BYTES:
            raise UserError(f"{path} has more than {JSON_BYTES >> 20} MB, which no file here has")
        check_seal(Path(path))
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None
    if isinstance(content, dict):
        content.pop(JSON_KEY, None)
    return content


def read_object(path: str | Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises UserError when it is missing or holds no object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, not {str(content)[:40]}")
    return content


def read_array(path: str | Path) -> np.ndarray:
    """One ``.npy`` array of plain numbers.

    Raises FileNotFoundError, UserError when the file has changed since this project wrote it, and
    ValueError when it is damaged or holds anything else.
    """
    check_seal(Path(path))
    with open(path, "rb") as file:
        return read_npy(file)


def save_tensors(path: str | Path, value: Any, previous: Path | None = None) -> None:
    """`torch.save` through a temporary file; `previous` as `atomic_write` has it."""
    # Given a name, torch.save would write it into the file
    with atomic_write(path, previous) as temporary, open(temporary, "wb") as file:
        torch.save(value, file)


def load_tensors(path: str | Path, map_location: str | torch.device = "cpu") -> Any:
    """Load a file of tensors and plain containers without executing code from it.

    Raises UserError when the file is missing, damaged, or holds other objects.
    """
    try:
        check_seal(Path(path))
        check_stored(Path(path))
        content = torch.load(path, map_location=map_location, weights_only=True)
        refuse_expanded(content)
        return content
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} holds more than tensors and plain containers, or is damaged, and is not "
            f"loaded because that could run code ({reason})"
        ) from None
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a readable checkpoint ({reason})") from None


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
    held = path.is_dir() and any(inside.name != LOCK for inside in path.iterdir())
    if held and not (overwrite or resume):
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
    """Make the folder that `check_output_dir` accepts; nothing in it is deleted but what killed
    processes had half written."""
    path = check_output_dir(path, overwrite, resume, option)
    path.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    return path
