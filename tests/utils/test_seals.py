"""Digests inside files: every flipped bit is found, and other readers do not notice them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_loaders.normalizer import Statistics
from model.single_file import read_single_state, write_single_file
from utils.errors import UserError
from utils.files import (
    atomic_write,
    load_tensors,
    read_array,
    read_json,
    save_tensors,
    write_json,
)

FLIPS = 60
STATS = Statistics("dataset_stats", torch.arange(4.0), torch.ones(4))


def write_array(path: Path) -> None:
    with atomic_write(path) as temporary:
        np.save(temporary, np.arange(50.0))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.json": lambda path: write_json(path, {"step": 7, "names": ["a", "b"], "rate": 0.5}),
    "a.pt": lambda path: save_tensors(path, {"w": torch.arange(50.0)}),
    "a.tar": lambda path: save_tensors(path, {"w": torch.arange(50.0)}),
    "a.npz": STATS.save_together,
    "a.npy": write_array,
    "a.safetensors": lambda path: write_single_file(path, {"w": torch.ones(9)}, {"a": 1}, STATS),
}
READERS: dict[str, Callable[[Path], object]] = {
    "a.json": read_json,
    "a.pt": load_tensors,
    "a.tar": load_tensors,
    "a.npz": lambda path: Statistics.load_together(path, "dataset_stats"),
    "a.npy": read_array,
    "a.safetensors": read_single_state,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_flipped_bit_is_found(tmp_path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    READERS[name](path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(8 * len(content), size=FLIPS):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=name):
            READERS[name](path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_flip_in_the_seal_itself_is_found(tmp_path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    start = content.index(b"sha256")
    for place in range(start, min(start + 73, len(content))):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(UserError, match=name):
            READERS[name](path)


def test_sealed_files_are_ordinary_ones(tmp_path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name)
    assert json.loads((tmp_path / "a.json").read_text())["step"] == 7
    assert torch.load(tmp_path / "a.pt", mmap=True)["w"][7] == 7
    assert np.load(tmp_path / "a.npz")["mean"].tolist() == [0, 1, 2, 3]
    assert np.load(tmp_path / "a.npy", mmap_mode="r").tolist() == list(range(50))
    assert load_file(tmp_path / "a.safetensors")["w"].sum() == 9


def test_files_without_a_seal_are_read(tmp_path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.ones(3))
    (tmp_path / "a.json").write_text('{"step": 1}')
    assert load_tensors(tmp_path / "a.pt")["w"].sum() == 3
    assert read_array(tmp_path / "a.npy").sum() == 3
    assert read_json(tmp_path / "a.json") == {"step": 1}


def test_an_edited_json_file_is_accepted_without_its_digest(tmp_path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"step": 7})
    assert read_json(path) == {"step": 7}
    edited = path.read_text().replace('"step": 7', '"step": 8')
    path.write_text(edited)
    with pytest.raises(UserError, match="if it was you, delete its line file_sha256"):
        read_json(path)
    path.write_text("".join(line for line in edited.splitlines(True) if "sha256" not in line))
    assert read_json(path) == {"step": 8}
