"""Whose is a file? Processes by machine and number, in the names of files and in locks."""

import os
import platform
import time
from pathlib import Path

ABANDONED = 3600  # seconds after which another machine's temporary file counts as left behind


def own_name() -> str:
    """``MACHINE.NUMBER`` of this process."""
    return f"{platform.node()}.{os.getpid()}"


def is_running(process: int) -> bool:
    """Is there a process of this number on this machine?"""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # it is somebody else's
    return True


def is_left_behind(path: Path, owner: str) -> bool:
    """Has the process ``MACHINE.NUMBER`` that was writing `path` ended?

    Of another machine's process only the time of its last write tells.
    """
    machine, _, process = owner.rpartition(".")
    if machine == platform.node():
        return not is_running(int(process))
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except FileNotFoundError:
        return False
