"""The result files of generation, in upstream's format.

``results.npy`` is a pickled dictionary; reading one must not run code, so `load_results` rebuilds
its arrays itself and refuses everything but arrays, numbers, text, lists and dictionaries.
"""

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write, write_text
from utils.unpickle import RefusingUnpickler

# What unpickling and rebuilding arrays raise on bytes that are not what they should be
MALFORMED = (
    *(pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError),
    *(OverflowError, MemoryError),
)
KEYS = ("motion", "text", "lengths", "num_samples", "num_repetitions")


@dataclass(frozen=True)
class Results:
    """Generated motions; row = repetition * num_samples + sample.

    motion ``[R, J, 3, T]`` float32 in metres (KIT: about millimetres), text: R captions, lengths
    ``[R]`` in frames.
    """

    motion: np.ndarray
    text: list[str]
    lengths: np.ndarray
    num_samples: int
    num_repetitions: int

    def row(self, sample: int, repetition: int) -> int:
        return repetition * self.num_samples + sample

    def joints(self, row: int) -> np.ndarray:
        """One motion ``[length, J, 3]``."""
        return self.motion[row, :, :, : self.lengths[row]].transpose(2, 0, 1)


def save_results(folder: Path, results: Results) -> Path:
    """Write ``results.npy``, ``results.txt`` (a caption per line) and ``results_len.txt``.

    Returns the path of ``results.npy``.
    """
    content = {key: getattr(results, key) for key in KEYS}
    path = folder / "results.npy"
    with atomic_write(path) as temporary:
        np.save(temporary, np.array(content, dtype=object), allow_pickle=True)
    write_text(folder / "results.txt", "\n".join(results.text) + "\n")
    write_text(folder / "results_len.txt", "\n".join(map(str, results.lengths.tolist())) + "\n")
    return path


def load_results(path: str | Path) -> Results:
    """Read a ``results.npy`` of this project or of upstream without running code from it.

    Raises UserError when the file is missing, damaged, or not such a dictionary.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version} of the .npy format")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if shape != () or dtype != np.dtype(object):
                raise ValueError(f"an array of shape {list(shape)} and type {dtype}")
            return _check(path, _Unpickler(file).load().values()[0])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (*MALFORMED, EOFError, OSError) as error:
        raise UserError(f"{path} is not a results.npy of generation ({error})") from None


def _check(path: str | Path, content: Any) -> Results:
    """The dictionary with upstream's keys as `Results`."""
    if not isinstance(content, dict) or not set(KEYS) <= set(content):
        raise UserError(f"{path} must hold a dictionary with the keys {', '.join(KEYS)}")
    motion, lengths = (np.asarray(_values(content[key])) for key in ("motion", "lengths"))
    text = content["text"]
    samples, repetitions = content["num_samples"], content["num_repetitions"]
    rows = len(motion) if motion.ndim == 4 and motion.shape[2] == 3 else 0
    consistent = (
        rows > 0
        and motion.dtype.kind == "f"
        and lengths.dtype.kind in "iu"
        and lengths.shape == (rows,)
        and 0 < lengths.min() <= lengths.max() <= motion.shape[3]
        and isinstance(text, list)
        and all(isinstance(caption, str) for caption in text)
        and len(text) == rows == samples * repetitions
    )
    if not consistent:
        raise UserError(f"{path}: motion, text, lengths and counts do not fit together")
    return Results(motion, text, lengths, int(samples), int(repetitions))


def _values(value: Any) -> Any:
    return value.values() if isinstance(value, _Array) else value


class _DType:
    """Stands for a pickled NumPy dtype: type code such as ``f4`` and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"|": "=", "<": "<", ">": ">", "=": "="}[state[1]]

    def numeric(self) -> np.dtype:
        dtype = np.dtype(self.order + self.code)
        if dtype.kind not in "fiub":
            raise pickle.UnpicklingError(f"an inner array of type {dtype}")
        return dtype


class _Array:
    """Stands for a pickled NumPy array, so that no pickled state reaches NumPy unchecked."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.column_major, self.data = state

    def values(self) -> Any:
        """A numeric array, or the list of an object array's items."""
        if isinstance(self.data, list):
            return self.data
        array = np.frombuffer(self.data, self.dtype.numeric())
        if array.size != math.prod(self.shape):
            raise pickle.UnpicklingError("an array of another size than it states")
        return array.reshape(self.shape, order="F" if self.column_major else "C").copy()


def _scalar(dtype: _DType, data: bytes) -> int | float | bool:
    return np.frombuffer(data, dtype.numeric())[0].item()


class _Unpickler(RefusingUnpickler):
    """Knows only the names that a pickled NumPy array needs, and maps them to stand-ins."""

    known = {  # noqa: RUF012
        "numpy.ndarray": _Array,
        "numpy.dtype": _DType,
        "multiarray._reconstruct": lambda *_: _Array(),
        "multiarray.scalar": _scalar,
    }

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 renamed numpy.core to numpy._core
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        return super().find_class(short, name)
