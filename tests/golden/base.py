"""Comparison of this project's numbers with recorded upstream numbers.

Each module of this package registers functions with `covers`; each yields one `Row` per compared
quantity. Sizes, configurations and seeds are read from the golden file, never assumed.
"""

import fnmatch
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    file: str
    quantity: str
    max_abs: float
    max_rel: float
    tolerance: str
    ok: bool


class Golden:
    """One golden file: arrays of an ``.npz``, or the object in a ``.json`` (attribute `json`)."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.json: Any = None
        self._arrays: dict[str, np.ndarray] = {}
        if path.suffix == ".json":
            self.json = json.loads(path.read_text(encoding="utf-8"))
        else:
            with np.load(path, allow_pickle=False) as archive:
                self._arrays = {key: archive[key] for key in archive.files}

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def has(self, key: str) -> bool:
        return key in self._arrays

    def keys(self, prefix: str = "") -> list[str]:
        return [key for key in self._arrays if key.startswith(prefix)]

    def tensor(self, key: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.as_tensor(self._arrays[key], dtype=dtype)

    def scalar(self, key: str) -> Any:
        return self._arrays[key].item()

    def strings(self, key: str) -> list[str]:
        return [str(item) for item in self._arrays[key].ravel()]

    def state_dict(self, prefix: str = "sd/") -> dict[str, torch.Tensor]:
        return {key[len(prefix) :]: self.tensor(key) for key in self.keys(prefix)}

    def close(
        self, quantity: str, actual: Any, expected: Any, atol: float = 0.0, rtol: float = 0.0
    ) -> Row:
        """Every entry must satisfy |actual - expected| <= atol + rtol * |expected|."""
        a, e = _to_numpy(actual).astype(np.float64), _to_numpy(expected).astype(np.float64)
        tolerance = " + ".join(
            text for text, on in ((f"{atol:g}", atol), (f"{rtol:g} rel", rtol)) if on
        )
        if a.shape != e.shape:
            note = f"{quantity}: shape {a.shape} instead of {e.shape}"
            return Row(self.name, note, np.inf, np.inf, tolerance or "0", False)
        difference = np.abs(a - e)
        relative = difference / np.maximum(np.abs(e), 1e-12)
        ok = bool(np.all(difference <= atol + rtol * np.abs(e)))  # NaN compares as False
        worst = (float(np.max(d, initial=0.0)) for d in (difference, relative))
        return Row(self.name, quantity, *worst, tolerance or "0", ok)

    def equal(self, quantity: str, actual: Any, expected: Any) -> Row:
        """Exact equality, for integers, booleans and strings."""
        a, e = _to_numpy(actual), _to_numpy(expected)
        ok = a.shape == e.shape and bool(np.all(a == e))
        return Row(self.name, quantity, 0.0 if ok else np.inf, 0.0 if ok else np.inf, "exact", ok)


Check = Callable[[Golden], Iterator[Row]]
CHECKS: list[tuple[tuple[str, ...], Check]] = []


def covers(*patterns: str) -> Callable[[Check], Check]:
    """Register a check for golden files whose name matches one of `patterns` (shell style)."""

    def register(check: Check) -> Check:
        CHECKS.append((patterns, check))
        return check

    return register


def checks_for(name: str) -> list[Check]:
    return [check for patterns, check in CHECKS if any(fnmatch.fnmatch(name, p) for p in patterns)]


def _to_numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
