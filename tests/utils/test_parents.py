"""A command that another one started ends with it, even where that one was killed."""

import os
import signal
import subprocess
import sys

PARENT = """
import os, subprocess, sys
from utils.parents import bound_to_parent
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], **bound_to_parent(os.environ))
child.wait()
"""
CHILD = """
import time
from utils.start import entry_point
from utils.parents import WATCHED
import os
@entry_point
def main():
    assert WATCHED not in os.environ
    print(os.getpid(), flush=True)
    time.sleep(60)
main()
"""


def test_a_killed_parent_takes_its_commands_with_it() -> None:
    words = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        os.kill(parent.pid, signal.SIGKILL)
        assert parent.stdout.read() == ""  # returns when the child, which holds it too, has ended
