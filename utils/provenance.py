"""What a run was made with: library versions, commit and machine, stored beside its results."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from utils.places import PROJECT_ROOT

PACKAGES = ("torch", "numpy", "transformers", "accelerate")


def provenance() -> dict[str, str]:
    """Library versions, Python, processor and the git commit (``unknown`` outside a checkout)."""
    facts = {package: _version(package) for package in PACKAGES}
    facts |= {"python": platform.python_version(), "machine": platform.machine()}
    return facts | {"commit": _commit()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    if not (PROJECT_ROOT / ".git").exists():  # git would describe whatever repository is around it
        return "unknown"
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return run.stdout.strip()
