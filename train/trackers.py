"""Where the figures of a run go: a metrics file always, and the tracker the user named."""

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from utils.errors import UserError
from utils.files import sync, write_text

# Upstream's names, and what Accelerate calls the trackers: by the names of their packages
PLATFORMS = {
    "TensorboardPlatform": "tensorboard",
    "WandBPlatform": "wandb",
    "ClearmlPlatform": "clearml",
    "NoPlatform": None,
}


class MetricsFile:
    """One JSON line per logged step in ``metrics.jsonl``; those after `step`, the run's last one,
    are of a start that was cut off, and are dropped."""

    def __init__(self, save_dir: Path, step: int) -> None:
        self.path = save_dir / "metrics.jsonl"
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))

    def log(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def sync(self) -> None:
        """No state may outlive the lines before it."""
        if self.path.is_file():
            sync(self.path)


def _step_of(line: str) -> float:
    """Infinite for a line that was torn."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def tracker_of(platform: str) -> str | None:
    """Accelerate's name of one of `PLATFORMS`. Raises UserError when its package is missing."""
    name = PLATFORMS[platform]
    if name is not None and find_spec(name) is None:
        raise UserError(
            f"--train_platform_type {platform} needs the package {name}: pip install {name}, or "
            "pass --train_platform_type NoPlatform (metrics.jsonl is always written)"
        )
    return name


def start_trackers(accelerator: Accelerator, save_dir: Path, options: Any, step: int) -> None:
    """Begin to track a run at `step`, by what `accelerator` was made to log with.

    TensorBoard's files go to ``save_dir/logs``; the others have a run named like the folder.
    """
    accelerator.project_configuration.logging_dir = str(save_dir / "logs")
    accelerator.init_trackers(
        "sopo",
        init_kwargs={
            "tensorboard": {"purge_step": step + 1},
            "wandb": {"name": save_dir.name, "dir": str(save_dir), "config": asdict(options)},
            "clearml": {"task_name": save_dir.name},
        },
    )


def close_trackers(accelerator: Accelerator) -> None:
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers.clear()
