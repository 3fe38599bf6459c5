"""A dataset folder packed into one memory-mapped file, so that a start costs seconds.

The file holds all readable clips of ``new_joint_vecs`` one after the other, and the caption files.
It remembers name, size and time of every source file and is rebuilt when one of them changed.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from utils.errors import UserError
from utils.files import atomic_write, read_array

FORMAT = "1"


@dataclass(frozen=True)
class PackedClips:
    """rows ``[sum T, D]`` float32 (memory-mapped); spans: id -> (first row, length); texts: id ->
    content of its caption file; problems: id -> why the clip is not there."""

    rows: Tensor
    spans: dict[str, tuple[int, int]]
    texts: dict[str, str]
    problems: dict[str, str]


def load_packed(folder: Path, feature_dim: int) -> PackedClips:
    """The packed form of `folder`, built on first use and after a change of its files."""
    digest = _digest(folder, feature_dim)
    for path in _cache_paths(folder):
        packed = _read(path, digest)
        if packed is not None:
            return packed
    return _build(folder, feature_dim, digest)


def _cache_paths(folder: Path) -> list[Path]:
    """Beside the data, or in the temporary folder when that cannot be written."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return [
        folder / "packed.safetensors",
        Path(tempfile.gettempdir()) / f"sopo_{os.getuid()}" / f"{name}.safetensors",
    ]


def _digest(folder: Path, feature_dim: int) -> str:
    """Of the names, sizes and times of all source files (one directory scan each)."""
    digest = hashlib.sha256(f"{FORMAT} {feature_dim}".encode())
    for part in ("new_joint_vecs", "texts"):
        if not (folder / part).is_dir():
            raise UserError(f"{folder / part} does not exist; it should hold the dataset's files")
        with os.scandir(folder / part) as files:
            found = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
        digest.update(repr(found).encode())
    return digest.hexdigest()


def _read(path: Path, digest: str) -> PackedClips | None:
    """The cache, or None when there is none or it is of other sources."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata.get("digest") != digest:
                return None
            index = json.loads(metadata["index"])
            rows = file.get_tensor("rows")
    except (OSError, SafetensorError):
        return None
    spans = {name: (start, length) for name, start, length in index["spans"]}
    return PackedClips(rows, spans, index["texts"], index["problems"])


def _build(folder: Path, feature_dim: int, digest: str) -> PackedClips:
    clips: list[np.ndarray] = []
    spans: dict[str, tuple[int, int]] = {}
    problems: dict[str, str] = {}
    start = 0
    files = sorted((folder / "new_joint_vecs").glob("*.npy"))
    for path in tqdm(files, desc=f"packing {folder.name}", unit="clip", disable=len(files) < 500):
        motion = _read_clip(path, feature_dim)
        if isinstance(motion, str):
            problems[path.stem] = motion
            continue
        clips.append(motion)
        spans[path.stem] = (start, len(motion))
        start += len(motion)
    texts = {}
    for path in sorted((folder / "texts").glob("*.txt")):
        try:
            texts[path.stem] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            problems.setdefault(path.stem, "caption file is not UTF-8")
    rows = np.concatenate(clips) if clips else np.zeros((0, feature_dim), np.float32)
    packed = PackedClips(torch.from_numpy(rows), spans, texts, problems)
    _write(folder, packed, digest)
    return packed


def _read_clip(path: Path, feature_dim: int) -> np.ndarray | str:
    """The clip as float32 ``[T, D]``, or the reason why it cannot be used."""
    try:
        motion = read_array(path)
    except (ValueError, OSError):
        return "unreadable file"
    if motion.ndim != 2 or motion.shape[1] != feature_dim:
        return f"shape {list(motion.shape)} instead of [T, {feature_dim}]"
    if len(motion) == 0:
        return "no frames"
    if motion.dtype.kind != "f":
        return f"numbers of type {motion.dtype} instead of floats"
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        motion = motion.astype(np.float32)
    if not np.isfinite(motion).all():
        return "NaN or infinite values"
    return motion


def _write(folder: Path, packed: PackedClips, digest: str) -> None:
    index = {
        "spans": [[name, *span] for name, span in packed.spans.items()],
        "texts": packed.texts,
        "problems": packed.problems,
    }
    metadata = {"digest": digest, "index": json.dumps(index)}
    for path in _cache_paths(folder):
        try:
            with atomic_write(path) as temporary:
                save_file({"rows": packed.rows}, temporary, metadata)
            return
        except OSError:  # a read-only dataset folder: try the next place
            continue
