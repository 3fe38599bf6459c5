"""``opt.txt``, the options of a MoMask folder: ``key: value`` lines between two rulers.

A published folder is a network's: its options, and its weights in ``model``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_text

FILE = "opt.txt"
BASE_FILE = "latest.tar"  # in the folder of a base transformer
FAMILY = "momask"  # how args.json names it
DATASET_NAMES = {"humanml": "t2m"}  # upstream's names of datasets, where they are others
LARGEST = 65536  # of a size; published ones have up to 1024
FIRST_LINE, LAST_LINE = f"{'-' * 12} Options {'-' * 13}", f"{'-' * 14} End {'-' * 16}"


@dataclass(frozen=True)
class OptionsFile:
    """The text of every value; readers convert it and name the file where that fails."""

    path: Path
    values: Mapping[str, str]

    @staticmethod
    def read(folder: Path) -> "OptionsFile":
        """Raises UserError when the folder has none."""
        path = folder / FILE
        if not path.is_file():
            raise UserError(f"{path} does not exist; a MoMask folder needs its options")
        if path.stat().st_size > 2**20:
            raise UserError(f"{path} has more than 1 MB; copy the published file again")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.split(":", 1) for line in lines if ":" in line and not line.startswith("---"))
        return OptionsFile(path, {key.strip(): value.strip() for key, value in pairs})

    def text(self, key: str) -> str:
        if key not in self.values:
            raise UserError(f"{self.path} lacks the entry {key}; copy the published file again")
        return self.values[key]

    def integer(self, key: str) -> int:
        """Raises UserError unless it is a whole number of at least 1."""
        value = self.text(key)
        if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= LARGEST:
            shown = repr(value[:40])
            raise UserError(f"{self.path}: {key} is {shown}, not a whole number up to {LARGEST}")
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        """Raises UserError unless it is a number in [0, 1]."""
        if default is not None and key not in self.values:
            return default
        value = self.text(key)
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            raise UserError(f"{self.path}: {key} is {value!r}, not a number between 0 and 1")
        return number

    def flag(self, key: str) -> bool:
        value = self.text(key)
        if value not in ("True", "False"):
            raise UserError(f"{self.path}: {key} is {value!r}, neither True nor False")
        return value == "True"

    def require(self, key: str, only: str) -> None:
        """Raises UserError unless `key` has the one value that the networks here are made for."""
        if self.text(key) != only:
            raise UserError(
                f"{self.path}: {key} is {self.values[key]!r}; only {only!r}, the published value, "
                "is supported"
            )


def write_options(folder: Path, values: Mapping[str, Any]) -> None:
    """Write ``opt.txt`` with sorted keys, as upstream does."""
    lines = [f"{key}: {values[key]}" for key in sorted(values)]
    write_text(folder / FILE, "\n".join([FIRST_LINE, *lines, LAST_LINE]) + "\n")


def published_folder(path: Path) -> Path | None:
    """The folder of upstream's layout that `path` is, or in whose ``model`` it lies; else None."""
    folder = path.parent.parent if path.parent.name == "model" else path
    return folder if (folder / FILE).is_file() else None


def published_args(folder: Path) -> dict[str, Any]:
    """What ``args.json`` would say of a published folder."""
    names = {value: key for key, value in DATASET_NAMES.items()}
    dataset = OptionsFile.read(folder).values.get("dataset_name", DATASET_NAMES["humanml"])
    return {"family": FAMILY, "dataset": names.get(dataset, dataset)}
