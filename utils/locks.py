"""One run per folder: a lock that tells who holds it, and that no killed process keeps."""

import fcntl
import json
import os
import platform
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TextIO

from utils.errors import UserError
from utils.files import LOCK, remove_leftovers
from utils.owners import is_running

HEARTBEAT = 30.0  # seconds between signs of life, for machines that do not see the file's lock
SILENT = 300.0  # seconds without one after which another machine's lock is stale


class FolderLock:
    """``with FolderLock(folder):`` no other process does the same, on this machine or another.

    The system takes the lock from a killed process, so that it is stale at once on the same
    machine, and after `SILENT` seconds on others. The new owner removes what killed processes were
    writing there. Raises UserError where another process holds the lock.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOCK

    def __enter__(self) -> "FolderLock":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self._take()
        self.file.truncate(0)
        self.file.write(json.dumps({"machine": platform.node(), "process": os.getpid()}) + "\n")
        self.file.flush()
        self.released = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        remove_leftovers(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.path.unlink(missing_ok=True)
        self.file.close()
        with suppress(OSError):  # a run that was refused leaves no empty folder
            self.folder.rmdir()

    def check(self) -> None:
        """Raises UserError where another process holds the lock now."""
        if self.path.is_file():
            with open(self.path, "a+", encoding="utf-8") as file:
                self._refuse_where_taken(file)

    def _take(self) -> TextIO:
        while True:
            file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115
            self._refuse_where_taken(file)
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                return file
            file.close()  # its holder has just removed it

    def _refuse_where_taken(self, file: TextIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            self._refuse(file)
        except OSError:  # a file system without locks: what the file says must do
            locked = False
        holder = _holder(file)
        if holder is None:
            return
        machine, process = holder
        silence = time.time() - os.fstat(file.fileno()).st_mtime
        here = machine == platform.node()
        if (not locked and is_running(process)) if here else silence < SILENT:
            self._refuse(file)

    def _refuse(self, file: TextIO) -> NoReturn:
        machine, process = _holder(file) or ("an unknown machine", "?")
        file.close()
        raise UserError(
            f"{self.folder} is in use by process {process} on {machine}; wait until it ends, stop "
            f"it, or name another folder ({self.path} is its lock)"
        )

    def _beat(self) -> None:
        while not self.released.wait(HEARTBEAT):
            os.utime(self.file.fileno())


def _holder(file: TextIO) -> tuple[str, int] | None:
    """Machine and process that a lock file names; None where it is empty or torn."""
    file.seek(0)
    try:
        content = json.loads(file.read())
        return str(content["machine"]), int(content["process"])
    except (ValueError, TypeError, KeyError):
        return None
