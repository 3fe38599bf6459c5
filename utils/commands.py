"""Commands in what programs print, as they can be typed at the place where they are read."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from utils.places import PROJECT_ROOT


def interpreter() -> str:
    """``python`` where the shell finds the running interpreter under that name, else its path."""
    found = shutil.which("python")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "python"
    return shlex.quote(_from_here(Path(sys.executable)))


def typed(text: str) -> str:
    """`text` with ``python -m`` and ``bash prepare/`` as they run in this shell and folder."""
    scripts = shlex.quote(_from_here(PROJECT_ROOT / "prepare"))
    text = text.replace("bash prepare/", f"bash {scripts}/")
    return text.replace("python -m ", f"{interpreter()} -m ")


def _from_here(path: Path) -> str:
    """Relative where the current folder holds it; links are kept, as a venv's python is one."""
    here = f"{Path.cwd()}{os.sep}"
    return str(path).removeprefix(here)
