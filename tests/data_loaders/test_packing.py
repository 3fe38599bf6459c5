import io
import os
import tempfile

import numpy as np
import pytest
import torch

from data_loaders import packing
from data_loaders.packing import load_packed
from tests.data_loaders.datasets import clip, write_dataset
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "data", {"000002": 44, "000000": 40, "M000000": 50})


def stored(packed, name):
    start, length = packed.spans[name]
    return packed.rows[start : start + length].numpy()


def test_packed_clips_are_the_files(folder):
    for packed in (load_packed(folder, 263), load_packed(folder, 263)):  # built, then read
        for number, name in enumerate(("000002", "000000", "M000000"), start=1):
            np.testing.assert_array_equal(stored(packed, name), clip(number, packed.spans[name][1]))
            assert packed.texts[name] == (folder / "texts" / f"{name}.txt").read_text()
        assert len(packed.rows) == 40 + 44 + 50
        assert packed.problems == {}


def test_a_second_start_reads_no_clip(folder, monkeypatch):
    first = load_packed(folder, 263)
    monkeypatch.setattr(packing, "read_array", lambda *_, **__: pytest.fail("a clip was read"))
    second = load_packed(folder, 263)
    assert second.spans == first.spans
    assert torch.equal(second.rows, first.rows)


def touch_later(path):
    """Change the time of a file without changing its size."""
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))


def test_changed_sources_are_packed_again(folder):
    load_packed(folder, 263)
    path = folder / "new_joint_vecs" / "000000.npy"
    np.save(path, clip(7, 40))  # same size
    touch_later(path)
    assert stored(load_packed(folder, 263), "000000")[0, 0] == 7000
    path = folder / "texts" / "000000.txt"
    path.write_text(path.read_text().replace("walks", "jumps"))  # same size
    touch_later(path)
    assert "jumps" in load_packed(folder, 263).texts["000000"]
    np.save(folder / "new_joint_vecs" / "000009.npy", clip(9, 42))
    assert stored(load_packed(folder, 263), "000009")[0, 0] == 9000
    (folder / "new_joint_vecs" / "000002.npy").unlink()
    assert "000002" not in load_packed(folder, 263).spans


def test_a_damaged_cache_is_replaced(folder):
    load_packed(folder, 263)
    (cache,) = folder.glob("*.safetensors")
    whole = cache.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2]):
        cache.write_bytes(damaged)
        np.testing.assert_array_equal(stored(load_packed(folder, 263), "000002"), clip(1, 44))
        assert cache.stat().st_size == len(whole)


def test_the_cache_is_kept_elsewhere_when_the_folder_cannot_hold_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (folder / "packed.safetensors" / "in_the_way").mkdir(parents=True)
    load_packed(folder, 263)
    assert len(list((tmp_path / "elsewhere").rglob("*.safetensors"))) == 1
    monkeypatch.setattr(packing, "read_array", lambda *_, **__: pytest.fail("a clip was read"))
    assert set(load_packed(folder, 263).spans) == {"000002", "000000", "M000000"}
    assert list(folder.glob(".packed*")) == []


def archive(**arrays):
    """The bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


UNUSABLE = {
    "nothing": (b"", "unreadable"),
    "half": (None, "unreadable"),
    "text": (b"not an array", "unreadable"),
    "pickle": (np.array([{}], dtype=object), "unreadable"),
    "archive": (archive(motion=clip(1, 60)), "unreadable"),
    "broken_archive": (b"PK\x03\x04 broken", "unreadable"),
    "nan": (np.where(clip(1, 60) == 1030, np.nan, clip(1, 60)), "NaN or infinite"),
    "infinite": (np.full((60, 263), np.inf, np.float32), "NaN or infinite"),
    "too_large": (np.full((60, 263), 1e300), "NaN or infinite"),
    "integers": (np.ones((60, 263), int), "type int64 instead of floats"),
    "narrow": (np.zeros((60, 262), np.float32), "shape [60, 262] instead of [T, 263]"),
    "deep": (np.zeros((60, 1, 263), np.float32), "shape [60, 1, 263]"),
    "no_frames": (np.zeros((0, 263), np.float32), "no frames"),
}


def write_unusable(path, content):
    """Write bytes or an array; None stands for the first half of a whole file."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    np.save(path, clip(1, 60) if content is None else content, allow_pickle=True)
    if content is None:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_clips_are_named_with_the_reason(folder, kind):
    content, reason = UNUSABLE[kind]
    write_unusable(folder / "new_joint_vecs" / f"{kind}.npy", content)
    for packed in (load_packed(folder, 263), load_packed(folder, 263)):
        assert reason in packed.problems[kind]
        assert set(packed.spans) == {"000002", "000000", "M000000"}
        assert torch.isfinite(packed.rows).all()


def test_caption_files_of_another_encoding_are_named(folder):
    (folder / "texts" / "000000.txt").write_bytes("läuft#läuft/VERB#0#0".encode("latin-1"))
    packed = load_packed(folder, 263)
    assert packed.problems == {"000000": "caption file is not UTF-8"}
    assert "000000" not in packed.texts


def test_missing_parts_are_told(folder):
    (folder / "texts").rename(folder / "captions")
    with pytest.raises(UserError, match="texts does not exist"):
        load_packed(folder, 263)
