import os
import pickle
import platform

import pytest
import torch

from utils.errors import UserError
from utils.files import atomic_write, load_tensors, prepare_output_dir, read_json, save_tensors


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_tensors_round_trip(tmp_path) -> None:
    save_tensors(tmp_path / "x.pt", {"a": torch.arange(3)})
    assert torch.equal(load_tensors(tmp_path / "x.pt")["a"], torch.arange(3))


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_checkpoint_with_code_is_refused_and_not_run(tmp_path, capsys) -> None:
    torch.save({"a": Payload()}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="more than tensors"):
        load_tensors(tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UserError):
        load_tensors(tmp_path / "y.pt")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_damaged_checkpoints_are_named(tmp_path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt"):
        load_tensors(tmp_path / "x.pt")
    with pytest.raises(UserError, match="does not exist"):
        load_tensors(tmp_path / "missing.pt")


def test_output_folder_is_not_reused_unasked(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.pt").write_text("precious")
    with pytest.raises(UserError, match="--overwrite or --resume"):
        prepare_output_dir(tmp_path / "run")
    prepare_output_dir(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "model.pt").read_text() == "precious"


def test_what_killed_processes_had_half_written_goes_away(tmp_path) -> None:
    machine, child = platform.node(), os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    for owner in (child, os.getpid()):
        (tmp_path / f".results.partial.{machine}.{owner}-abcd1234.npy").touch()
    prepare_output_dir(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [
        f".results.partial.{machine}.{os.getpid()}-abcd1234.npy"
    ]


def test_json_errors_are_named(tmp_path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "x.json")
