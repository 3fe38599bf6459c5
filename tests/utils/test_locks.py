"""One run per folder; locks of processes that were killed, here and on other machines."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import LOCK, atomic_write
from utils.locks import SILENT, FolderLock
from utils.owners import own_name

HOLD = """
import sys, time
from utils.locks import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_until_its_process_is_killed(tmp_path, holder) -> None:
    with pytest.raises(UserError, match=rf"in use by process {holder.pid} on \S+; wait"):
        FolderLock(tmp_path).check()
    with pytest.raises(UserError, match="in use"), FolderLock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    FolderLock(tmp_path).check()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_another_machines_lock_is_stale_when_it_gives_no_sign_of_life(tmp_path) -> None:
    path = tmp_path / LOCK
    path.write_text('{"machine": "elsewhere", "process": 7}\n')
    with pytest.raises(UserError, match="in use by process 7 on elsewhere"), FolderLock(tmp_path):
        pass
    old = time.time() - SILENT - 1
    os.utime(path, (old, old))
    with FolderLock(tmp_path):
        pass


def test_a_torn_lock_is_stale(tmp_path) -> None:
    (tmp_path / LOCK).write_text('{"machine": "else')
    with FolderLock(tmp_path):
        pass


def left_by(folder: Path, owner: str) -> Path:
    """What a process of this name leaves when it is killed while it writes."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(KeyError), atomic_write(folder / "model.pt") as temporary:
        name = temporary.name
        raise KeyError
    path = folder / name.replace(own_name(), owner)
    path.write_text("half")
    return path


def test_the_new_owner_removes_what_killed_processes_were_writing(tmp_path) -> None:
    machine = own_name().rpartition(".")[0]
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    dead = left_by(tmp_path, f"{machine}.{ended.pid}")
    deep = left_by(tmp_path / "stats", f"{machine}.{ended.pid}")
    running = left_by(tmp_path, f"{machine}.{os.getppid()}")
    remote = left_by(tmp_path, "elsewhere.1")
    long_ago = left_by(tmp_path, "elsewhere.2")
    os.utime(long_ago, (0, 0))
    (tmp_path / ".mine.partial.notes").write_text("a file of the user")
    with FolderLock(tmp_path):
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()} - {LOCK}
    assert left == {running.name, remote.name, ".mine.partial.notes"}
    assert not dead.exists()
    assert not deep.exists()
