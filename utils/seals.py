"""SHA-256 of a file inside the file, so that bytes which changed on the disk are found on loading.

Every format has a place for it that all readers pass over, so a sealed file stays an ordinary one:

    .json            the first entry, ``"file_sha256"``
    .pt .tar .npz    the comment of the zip archive
    .npy             bytes after the array
    .safetensors     an entry ``"sha256"`` of the metadata, where its writer left `ROOM` for it

Files of other projects have no seal and are read as they are; their readers check shapes and
finiteness.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError

DIGITS = 64
BLOCK = 1 << 20
TAIL = b"\nsha256 "  # before the digits at the end of a file
JSON_KEY = "file_sha256"
ENTRY = b'{\n    "file_sha256": "'  # before them in JSON, and after them:
ENTRY_END = b'",\n'
ROOM = {"sha256": "0" * DIGITS}  # metadata; one entry, as the order of several is anybody's guess
MARK = b'"sha256":"'  # before the digits
DAMAGED_MARK = re.compile(
    b"(?:%b)[0-9a-f]{64}"
    % b"|".join(re.escape(MARK[:i]) + b"." + re.escape(MARK[i + 1 :]) for i in range(len(MARK))),
    re.DOTALL,
)
ZIP_END = b"PK\x05\x06"  # the last record of a zip archive; its last two bytes count the comment
ZIP_END_SIZE = 22


def seal(path: Path) -> None:
    """Write the digest of the finished file `path` into it; other formats stay as they are."""
    with open(path, "r+b") as file:
        if path.suffix in SEALS:
            SEALS[path.suffix](file)


def check_seal(path: Path) -> None:
    """Raises UserError where a sealed file has changed since, and FileNotFoundError."""
    with open(path, "rb") as file:
        if path.suffix in CHECKS and not CHECKS[path.suffix](file):
            aside = f"; if it was you, delete its line {JSON_KEY}" if path.suffix == ".json" else ""
            raise UserError(f"{path} has changed since it was written: its SHA-256 differs{aside}")


def _digest(file: BinaryIO, size: int, digest: "hashlib._Hash | None" = None) -> bytes:
    """Of the next `size` bytes, after what `digest` has seen."""
    digest = digest or hashlib.sha256()
    while size > 0 and (block := file.read(min(size, BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest().encode()


def _alike(found: bytes, mark: bytes) -> bool:
    """A mark that is damaged in one byte still tells that a file was sealed."""
    return len(found) == len(mark) and sum(a != b for a, b in zip(found, mark, strict=True)) <= 1


def _seal_json(file: BinaryIO) -> None:
    content = file.read()
    if content.startswith(b"{\n"):  # as `utils.files.write_json` writes a dictionary
        rest = content[2:]
        file.seek(0)
        file.write(ENTRY + hashlib.sha256(rest).hexdigest().encode() + ENTRY_END + rest)


def _check_json(file: BinaryIO) -> bool:
    content = file.read()
    start = len(ENTRY) + DIGITS + len(ENTRY_END)
    if not _alike(content[: len(ENTRY)], ENTRY):
        return True
    digits = hashlib.sha256(content[start:]).hexdigest().encode()
    return content[:start] == ENTRY + digits + ENTRY_END


def _seal_tail(file: BinaryIO) -> None:
    size = file.seek(0, 2)
    file.seek(0)
    digits = _digest(file, size)
    file.seek(size)
    file.write(TAIL + digits)


def _seal_zip(file: BinaryIO) -> None:
    size = file.seek(0, 2)
    file.seek(max(0, size - ZIP_END_SIZE))
    end = file.read()
    if end.startswith(ZIP_END) and end.endswith(b"\0\0"):  # no comment so far
        file.seek(size - 2)
        file.write((len(TAIL) + DIGITS).to_bytes(2, "little"))
        _seal_tail(file)


def _check_tail(file: BinaryIO) -> bool:
    size = file.seek(0, 2) - len(TAIL) - DIGITS
    if size < 0:
        return True
    file.seek(size)
    tail = file.read()
    if not _alike(tail[: len(TAIL)], TAIL):
        return True
    file.seek(0)
    return tail == TAIL + _digest(file, size)


def _room(file: BinaryIO) -> tuple[bytes, int]:
    """The header of a .safetensors file, and where its digits are; -1 where it has no seal."""
    header = file.read(min(int.from_bytes(file.read(8), "little"), 100_000_000))
    if MARK in header:
        return header, header.index(MARK) + len(MARK)
    return header, 0 if DAMAGED_MARK.search(header) else -1


def _blank_digest(file: BinaryIO, header: bytes, place: int) -> bytes:
    """As if the digits were zeros."""
    blank = header[:place] + b"0" * DIGITS + header[place + DIGITS :]
    start = hashlib.sha256(len(header).to_bytes(8, "little") + blank)
    size = file.seek(0, 2) - file.seek(8 + len(header))
    return _digest(file, size, start)


def _seal_safetensors(file: BinaryIO) -> None:
    header, place = _room(file)
    if place > 0:
        digits = _blank_digest(file, header, place)
        file.seek(8 + place)
        file.write(digits)


def _check_safetensors(file: BinaryIO) -> bool:
    header, place = _room(file)
    if place < 0:
        return True
    return header[place : place + DIGITS] == _blank_digest(file, header, place)


SEALS: dict[str, Callable[[BinaryIO], None]] = {
    ".json": _seal_json,
    ".npy": _seal_tail,
    ".safetensors": _seal_safetensors,
    **dict.fromkeys((".pt", ".tar", ".npz"), _seal_zip),
}
CHECKS: dict[str, Callable[[BinaryIO], bool]] = {
    ".json": _check_json,
    ".safetensors": _check_safetensors,
    **dict.fromkeys((".npy", ".pt", ".tar", ".npz"), _check_tail),
}
