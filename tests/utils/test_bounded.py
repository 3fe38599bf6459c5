"""What a stranger's file announces takes no memory, and no mistake in it is a traceback."""

import gzip
import io
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.normalizer import Statistics
from model.text.openai_clip import write_tokenizer_files
from rewards.word_vectors import WordVectorizer
from tests.rewards.glove import write_glove
from train.stages import section
from utils.bounded import read_yaml
from utils.errors import UserError
from utils.files import load_tensors, read_array, read_json
from utils.unpickle import load_tensors_only


@contextmanager
def little_memory(megabytes: int = 50) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()


def npy(header: str, content: bytes = b"", version: bytes = b"\1\0") -> bytes:
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header.encode("latin-1") + content


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"
UNUSABLE = {
    "nothing": b"",
    "one byte": b"\x93",
    "unclosed": npy("{'descr': '<f4', 'shape': (3,"),
    "no literal": npy("{'descr': f(), 'fortran_order': False, 'shape': (3,)}"),
    "nested": npy("(" * 5000),
    "unclosed text": npy("{'descr': '''"),
    "huge": npy(FLOATS % "(10000000000,)", b"\0" * 40),
    "beyond": npy(FLOATS % "(10, 1000000000000000000000000000000)", b"\0" * 40),
    "negative": npy(FLOATS % "(-5, -2)", b"\0" * 40),
    "cut": npy(FLOATS % "(11,)", b"\0" * 40),
    "empty text": npy("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1])),
    "long header": npy(FLOATS % f"({' ' * 10**6}3,)", version=b"\2\0"),
    "new format": npy(FLOATS % "(3,)", b"\0" * 12, b"\7\0"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_arrays_with_absurd_headers_are_damaged(tmp_path, kind: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(UNUSABLE[kind])
    with little_memory(), pytest.raises(ValueError, match=r".+"):
        read_array(path)


def test_whole_arrays_are_read(tmp_path) -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.ones(3, np.float16), np.zeros((0, 4))):
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(read_array(tmp_path / "x.npy"), array)


def compressed(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_statistics_that_unpack_to_much_are_refused(tmp_path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2**24))
    path = compressed(tmp_path / "stats.npz", dict.fromkeys(("mean.npy", "std.npy"), b""))
    path = compressed(path, {"mean.npy": buffer.getvalue(), "std.npy": buffer.getvalue()})
    del buffer
    assert path.stat().st_size < 2**20
    with little_memory(), pytest.raises(UserError, match="more than"):
        Statistics.load_together(path, "dataset_stats")


@pytest.mark.parametrize("load", [load_tensors, load_tensors_only])
def test_compressed_checkpoints_are_refused(tmp_path, load) -> None:
    torch.save({"a": torch.zeros(2**24)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path = compressed(tmp_path / "x.pt", members)
    del members
    assert path.stat().st_size < 2**20
    with little_memory(), pytest.raises(UserError, match="is compressed"):
        load(path)


@pytest.mark.parametrize("load", [load_tensors, load_tensors_only])
@pytest.mark.parametrize("content", [b"\x80", b"\x00", b"\x80\x02", b".", b"(" * 10_000, b"PK"])
def test_checkpoints_of_a_few_bytes_are_damaged(tmp_path, load, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_merges_that_unpack_to_much_are_refused(tmp_path) -> None:
    path = tmp_path / "merges.gz"
    path.write_bytes(gzip.compress(b"a b\n" * 2**24))
    with little_memory(), pytest.raises(UserError, match="unpacks to more"):
        write_tokenizer_files(path, tmp_path)


def test_a_pickle_of_huge_numbers_takes_no_memory(tmp_path) -> None:
    """The C unpickler would take 16 bytes for each object that might be remembered."""
    glove = write_glove(tmp_path)
    words = b"\x80\x02]r" + struct.pack("<I", 2**31) + b"X\x03\0\0\0unka."
    (glove / "our_vab_words.pkl").write_bytes(words)
    with little_memory():
        assert WordVectorizer.load(glove).rows.keys() == {"unk"}
    (glove / "our_vab_words.pkl").write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.")
    with little_memory(), pytest.raises(UserError, match=r"our_vab_words\.pkl"):
        WordVectorizer.load(glove)


@pytest.mark.parametrize("text", ["[" * 100_000, "5" * 5_000, "{", "\udcff", '{"a":' * 50_000])
def test_json_of_any_depth_is_no_traceback(tmp_path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="is not valid JSON"):
        read_json(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def test_yaml_aliases_are_refused(tmp_path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    path = tmp_path / "x.yaml"
    path.write_text("\n".join(lines))
    with little_memory(), pytest.raises(UserError, match=r"here is not valid YAML .*alias"):
        read_yaml(path, "here")


def test_options_that_name_themselves_end(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"config: {path}\nnum_steps: 3\n")
    with pytest.raises(UserError, match="in a circle"):
        section("train.train_sopo", {"config": str(path)}, "common")
