"""Where figures go while a run goes on: a metrics file always, and the tracker the user named."""

import importlib
import json
from pathlib import Path
from typing import Any, Protocol

from utils.errors import UserError

PLATFORMS = ("TensorboardPlatform", "NoPlatform", "WandBPlatform", "ClearmlPlatform")


class Tracker(Protocol):
    def log(self, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class MetricsFile:
    """Appends one JSON line per logged step to ``metrics.jsonl``."""

    def __init__(self, save_dir: Path) -> None:
        self.file = (save_dir / "metrics.jsonl").open("a", encoding="utf-8")

    def log(self, step: int, values: dict[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class TensorboardPlatform:
    def __init__(self, save_dir: Path) -> None:
        self.writer = _import("torch.utils.tensorboard").SummaryWriter(str(save_dir / "logs"))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandBPlatform:
    def __init__(self, save_dir: Path) -> None:
        self.run = _import("wandb").init(project="sopo", name=save_dir.name, dir=str(save_dir))

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


class ClearmlPlatform:
    def __init__(self, save_dir: Path) -> None:
        task = _import("clearml").Task.init(project_name="sopo", task_name=save_dir.name)
        self.task, self.logger = task, task.get_logger()

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.logger.report_scalar(name, name, value, iteration=step)

    def close(self) -> None:
        self.task.close()


def open_trackers(platform: str, save_dir: Path) -> list[Tracker]:
    """The metrics file and the named platform. Raises UserError when its package is missing."""
    trackers: list[Tracker] = [MetricsFile(save_dir)]
    if platform != "NoPlatform":
        classes = {c.__name__: c for c in (TensorboardPlatform, WandBPlatform, ClearmlPlatform)}
        trackers.append(classes[platform](save_dir))
    return trackers


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"the tracker needs the package behind {module}: pip install 'sopo-motion[trackers]' "
            "(TensorBoard) or that package, or pass --train_platform_type NoPlatform"
        ) from None
