"""No command that another one started goes on when that one is gone, however it ended.

The child's standard input is a pipe whose other end only the parent holds. It closes with the
parent, even where that was killed, and the child then gets SIGTERM, on which a training saves.
"""

import os
import signal
import subprocess
import threading
from collections.abc import MutableMapping
from typing import Any

WATCHED = "SOPO_STDIN_IS_PARENT"


def bound_to_parent(environment: MutableMapping[str, str]) -> dict[str, Any]:
    """What `subprocess.Popen` must be given so that the command ends with this process."""
    return {"stdin": subprocess.PIPE, "env": {**environment, WATCHED: "1"}}


def watch_parent(environment: MutableMapping[str, str] = os.environ) -> None:
    """In the child: wait for the parent's end in a thread. Does nothing in other processes."""
    if environment.pop(WATCHED, ""):  # so that its own children do not read the pipe as well
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
