"""A dataset folder packed into one memory-mapped file, so that a start costs seconds.

The file holds all readable clips of ``new_joint_vecs`` one after the other, and the caption files.
It remembers name, size and times of every source file and is rebuilt when one of them changed. The
time of the last change of an inode cannot be set back, so a clip that was replaced by one of the
same size and date is found as well. Its own content is checked by a digest whenever it is opened.
"""

import hashlib
import json
import os
import stat
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
from utils.unpickle import DAMAGE

FORMAT = "2"
CAPTION_BYTES = 2**20  # of one caption file


@dataclass(frozen=True)
class PackedClips:
    """rows ``[sum T, D]`` float32 (memory-mapped); spans: id -> (first row, length); texts: id ->
    content of its caption file; problems: id -> why the clip is not there; digest: of all this."""

    rows: Tensor
    spans: dict[str, tuple[int, int]]
    texts: dict[str, str]
    problems: dict[str, str]
    digest: str

    @property
    def index(self) -> str:
        """All but the rows, as JSON."""
        return _index(self.spans, self.texts, self.problems)


def load_packed(folder: Path, feature_dim: int, rebuild: bool = False) -> PackedClips:
    """The packed form of `folder`, built on first use, after a change of its files, and where a
    cache is damaged or not to be trusted; `rebuild`: in any case."""
    key = _key(folder, feature_dim)
    for path in [] if rebuild else _cache_paths(folder):
        packed = _read(path, key, feature_dim) if _is_trusted(path, folder) else None
        if packed is not None:
            return packed
    packed = _build(folder, feature_dim)
    _write(folder, packed, key)
    return packed


def _cache_paths(folder: Path) -> list[Path]:
    """Beside the data, or in the temporary folder when that cannot be written."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return [
        folder / "packed.safetensors",
        Path(tempfile.gettempdir()) / f"sopo_{os.getuid()}" / f"{name}.safetensors",
    ]


def _is_trusted(path: Path, folder: Path) -> bool:
    """Is a cache written by us, or by whoever owns the data it is made of?

    The temporary folder is everybody's: a cache there, and the folder it lies in, must be ours.
    """
    if path.parent == folder:
        owners = {os.getuid(), 0, folder.stat().st_uid}
        return path.is_file() and path.stat().st_uid in owners
    return path.is_file() and _is_private(path.parent) and path.lstat().st_uid == os.getuid()


def _is_private(folder: Path) -> bool:
    """A folder of our own, no link to another, into which nobody else can write."""
    state = folder.lstat()
    own = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
    return own and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _key(folder: Path, feature_dim: int) -> str:
    """Of the names, sizes and times of all source files (one directory scan each)."""
    digest = hashlib.sha256(f"{FORMAT} {feature_dim}".encode())
    for part in ("new_joint_vecs", "texts"):
        if not (folder / part).is_dir():
            raise UserError(f"{folder / part} does not exist; it should hold the dataset's files")
        with os.scandir(folder / part) as files:
            found = sorted((file.name, *_identity(file.stat())) for file in files)
        digest.update(repr(found).encode())
    return digest.hexdigest()


def _identity(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _read(path: Path, key: str, feature_dim: int) -> PackedClips | None:
    """The cache; None when it is of other sources, and after a warning when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            rows, index = file.get_tensor("rows"), metadata["index"]
        if rows.dtype != torch.float32 or rows.dim() != 2 or rows.shape[1] != feature_dim:
            raise ValueError("its rows are of another shape")
        digest = _digest(rows, index)
        if metadata["digest"] != digest:
            raise ValueError("its digest differs")
        content = json.loads(index)
        spans = {name: (start, length) for name, start, length in content["spans"]}
        return PackedClips(rows, spans, content["texts"], content["problems"], digest)
    except (*DAMAGE, SafetensorError) as error:
        print(f"warning: {path} is damaged ({error}) and is made anew")
        return None


def _digest(rows: Tensor, index: str) -> str:
    digest = hashlib.sha256(index.encode())
    digest.update(memoryview(rows.numpy()).cast("B") if rows.numel() else b"")
    return digest.hexdigest()


def _build(folder: Path, feature_dim: int) -> PackedClips:
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
        text, problem = _read_captions(path)
        if problem:
            problems.setdefault(path.stem, problem)
        else:
            texts[path.stem] = text
    joined = np.concatenate(clips) if clips else np.zeros((0, feature_dim), np.float32)
    rows = torch.from_numpy(joined)
    digest = _digest(rows, _index(spans, texts, problems))
    return PackedClips(rows, spans, texts, problems, digest)


def _index(
    spans: dict[str, tuple[int, int]], texts: dict[str, str], problems: dict[str, str]
) -> str:
    content = {
        "spans": [[name, *span] for name, span in spans.items()],
        "texts": texts,
        "problems": problems,
    }
    return json.dumps(content)


def _read_captions(path: Path) -> tuple[str, str]:
    """The text of a caption file, or the reason why it cannot be used."""
    try:
        if path.stat().st_size > CAPTION_BYTES:
            return "", f"caption file larger than {CAPTION_BYTES >> 20} MB"
        return path.read_text(encoding="utf-8"), ""
    except UnicodeDecodeError:
        return "", "caption file is not UTF-8"
    except OSError:
        return "", "unreadable caption file"


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


def _write(folder: Path, packed: PackedClips, key: str) -> None:
    """Keep it for the next start, where there is a place; a full disk ends no run."""
    metadata = {"key": key, "digest": packed.digest, "index": packed.index}
    reasons = []
    for path in _cache_paths(folder):
        try:
            if path.parent != folder:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not _is_private(path.parent):
                    raise OSError(f"{path.parent} is not ours alone")
            with atomic_write(path) as temporary:
                save_file({"rows": packed.rows}, temporary, metadata)
            return
        except (OSError, SafetensorError, UserError) as error:  # a read-only folder, a full disk
            reasons.append(" ".join(str(error).split()))
    print(f"warning: {folder.name} is packed anew at every start ({'; '.join(reasons)})")
