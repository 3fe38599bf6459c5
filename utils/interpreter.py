"""The Python that is running, as one would type it."""

import shutil
import sys
from pathlib import Path


def interpreter() -> str:
    """``python`` where that is this Python, else its path, from the working folder if below it."""
    if shutil.which("python") == sys.executable:
        return "python"
    here, running = Path.cwd(), Path(sys.executable)
    return str(running.relative_to(here) if running.is_relative_to(here) else running)
