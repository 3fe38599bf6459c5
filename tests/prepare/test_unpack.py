import tarfile
from pathlib import Path

import pytest

from prepare.unpack import Options, unpack
from utils.errors import UserError


def pack(archive: Path, **files: str) -> Path:
    """A .tar.xz of small files in its folder ``bvh``."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz") as tar:
        for name, text in files.items():
            path = archive.parent / name
            path.write_text(text)
            tar.add(path, f"bvh/{name}.bvh")
            path.unlink()
    return archive


def test_all_archives_land_in_one_folder(tmp_path) -> None:
    pack(tmp_path / "raw" / "b.tar.xz", walk="1", wave="2")
    pack(tmp_path / "raw" / "a.tar.xz", bow="3")
    out = tmp_path / "out"
    unpack(Options(str(tmp_path / "raw"), str(out)))
    assert {path.stem: path.read_text() for path in (out / "bvh").iterdir()} == {
        **{"walk": "1", "wave": "2"},
        "bow": "3",
    }
    assert (out / "unpacked.txt").read_text() == "a.tar.xz\nb.tar.xz\n"


def test_a_damaged_archive_is_named_and_nothing_counts_as_unpacked(tmp_path) -> None:
    pack(tmp_path / "raw" / "a.tar.xz", walk="1" * 5000)
    damaged = pack(tmp_path / "raw" / "b.tar.xz", wave="2" * 5000)
    damaged.write_bytes(damaged.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"b\.tar\.xz cannot be unpacked"):
        unpack(Options(str(tmp_path / "raw"), str(tmp_path / "out")))
    assert not (tmp_path / "out" / "unpacked.txt").exists()


def test_nothing_is_written_outside_of_the_folder(tmp_path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "raw" / "a.tar.xz", "w:xz") as tar:
        tar.add(tmp_path / "x", "../../escaped.bvh")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(Options(str(tmp_path / "raw"), str(tmp_path / "deep" / "out")))
    assert not (tmp_path / "escaped.bvh").exists()


def test_a_folder_without_archives_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"holds no \.tar\.xz archive"):
        unpack(Options(str(tmp_path), str(tmp_path / "out")))
