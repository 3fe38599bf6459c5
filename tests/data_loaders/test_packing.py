import io
import os
import resource
import tempfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from data_loaders import packing
from data_loaders.packing import load_packed
from eval.motion_sets import SampledOptions, open_split
from sample.generation import Options as GenerationOptions
from sample.generation import open_captions
from tests.data_loaders.datasets import clip, write_dataset
from train.data import TrainingOptions, open_splits
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


def test_a_clip_of_the_same_size_and_date_is_noticed(folder):
    path = folder / "new_joint_vecs" / "000000.npy"
    state = path.stat()
    load_packed(folder, 263)
    np.save(path, clip(7, 40))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert stored(load_packed(folder, 263), "000000")[0, 0] == 7000


def test_flipped_bits_are_found_and_the_cache_is_made_anew(folder, capsys):
    load_packed(folder, 263)
    cache = folder / "packed.safetensors"
    whole = cache.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(8, len(whole), 30).tolist(), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        cache.write_bytes(damaged)
        packed = load_packed(folder, 263)
        for number, name in enumerate(("000002", "000000", "M000000"), start=1):
            np.testing.assert_array_equal(stored(packed, name), clip(number, packed.spans[name][1]))
        assert cache.stat().st_size == len(whole)
    assert "is damaged (its digest differs) and is made anew" in capsys.readouterr().out


def poison(cache, **changes):
    """The cache with other rows or metadata under a true digest of its rows and index."""
    with safe_open(cache, framework="pt") as file:
        metadata, rows = file.metadata(), file.get_tensor("rows")
    rows = changes.pop("rows", rows)
    metadata |= changes
    metadata["digest"] = packing._digest(rows, metadata["index"])
    save_file({"rows": rows}, cache, metadata)


@pytest.mark.parametrize("index", ["0", "[]", "{", "{}", '{"spans": 3}', "[" * 5000])
def test_damaged_metadata_is_no_traceback(folder, index):
    load_packed(folder, 263)
    poison(folder / "packed.safetensors", index=index)
    assert set(load_packed(folder, 263).spans) == {"000002", "000000", "M000000"}


def test_a_cache_of_somebody_else_is_not_served(folder, tmp_path, monkeypatch):
    """In the temporary folder anybody may lay one down under the name that we would look for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (folder / "packed.safetensors" / "in_the_way").mkdir(parents=True)
    load_packed(folder, 263)
    (cache,) = tmp_path.glob("sopo_*/*.safetensors")
    poison(cache, rows=torch.full((134, 263), 666.0))
    assert stored(load_packed(folder, 263), "000000")[0, 0] == 666, "ours is believed"
    private = cache.parent
    private.chmod(0o777)
    assert stored(load_packed(folder, 263), "000000")[0, 0] != 666
    private.chmod(0o700)
    private.rename(tmp_path / "elsewhere")
    private.symlink_to(tmp_path / "elsewhere")
    assert stored(load_packed(folder, 263), "000000")[0, 0] != 666
    private.unlink()
    (tmp_path / "elsewhere").rename(private)
    other = os.getuid() + 1
    private.rename(tmp_path / f"sopo_{other}")
    monkeypatch.setattr(os, "getuid", lambda: other)
    assert stored(load_packed(folder, 263), "000000")[0, 0] != 666


def test_a_cache_can_be_made_anew_on_request(folder):
    load_packed(folder, 263)
    poison(folder / "packed.safetensors", rows=torch.full((134, 263), 666.0))
    assert stored(load_packed(folder, 263), "000000")[0, 0] == 666
    assert stored(load_packed(folder, 263, rebuild=True), "000000")[0, 0] == 2000
    assert stored(load_packed(folder, 263), "000000")[0, 0] == 2000


@pytest.mark.parametrize(
    "open_with",
    [
        lambda folder: open_captions("tiny", GenerationOptions(**folder)),
        lambda folder: open_split(SampledOptions(model_path=[], dataset="tiny", **folder)),
        lambda folder: open_splits(TrainingOptions(dataset="tiny", batch_size=1, **folder))[0],
    ],
)
def test_sampling_evaluation_and_training_can_ask_for_it(folder, open_with):
    places = {"data_dir": str(folder), "rebuild_cache": False}
    open_with(places)
    poison(folder / "packed.safetensors", rows=torch.full((134, 263), 666.0))
    assert open_with(places).packed.rows[0, 0] == 666
    assert open_with(places | {"rebuild_cache": True}).packed.rows[0, 0] == 2000


def test_a_full_disk_is_a_warning(folder, tmp_path, monkeypatch, capsys):
    """The limit on the size of files stands for the end of the disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        packed = load_packed(folder, 263)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stored(packed, "000000")[0, 0] == 2000
    assert "is packed anew at every start" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_caption_file_that_is_too_large_is_named(folder):
    (folder / "texts" / "000000.txt").write_text("walks " * 200_000)
    assert load_packed(folder, 263).problems == {"000000": "caption file larger than 1 MB"}


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
