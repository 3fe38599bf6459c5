from utils.start import entry_point

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from utils.files import save_tensors, write_json

WRITERS = {
    "torch": lambda path: save_tensors(path, {"a": torch.zeros(100_000)}),
    "json": lambda path: write_json(path, list(range(100_000))),
    "numpy": lambda path: np.save(path, np.zeros(100_000)),
    "safetensors": lambda path: save_file({"a": torch.zeros(100_000)}, path),
}


def ends_with_one_line(function, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        entry_point(function)()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("writer", WRITERS)
def test_a_limit_on_files_and_a_full_disk_are_one_line(writer: str, tmp_path, capsys) -> None:
    def main() -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            WRITERS[writer](tmp_path / "x.pt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert ends_with_one_line(main, capsys)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys) -> None:
    def main() -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "x"))

    assert f"{tmp_path / 'x'}: Permission denied; name a" in ends_with_one_line(main, capsys)


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(2**60), lambda: np.empty(2**50), lambda: bytearray(2**62)],
    ids=["torch", "numpy", "python"],
)
def test_too_little_memory_is_one_line(allocate, capsys) -> None:
    assert "out of memory" in ends_with_one_line(allocate, capsys)


def test_mistakes_of_the_program_keep_their_traceback() -> None:
    def main() -> None:
        Path("/nowhere/at/all").read_text()

    with pytest.raises(FileNotFoundError):
        entry_point(main)()
