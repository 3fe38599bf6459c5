"""What the card of a shipped model says of it: who it is, and the training that made it."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.shipped import CARD_FILE
from train.stages import as_words
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.options import option
from utils.outputs import OutOptions

DTYPE = torch.float16
FIRST_STEPS = (1, 10, 20)  # whose losses tell that a training is the same
# Where a command ran and wrote changes nothing about what it made.
ELSEWHERE = ("save_dir", "overwrite", "resume", "device", "cuda", "train_platform_type")


@dataclass
class ShipOptions(OutOptions):
    base: str = option("", "checkpoint or run folder of the base", required=True)
    reward: str = option("", "run folder of the model that is the reward", required=True)
    judge: str = option("", "run folder of the model that judges", required=True)
    data_dir: str = option("", "folder of the embedded dataset they learned from", required=True)


@dataclass(frozen=True)
class ShippedModel:
    """command: what trained it; losses: by step, as its training logged them."""

    file: str
    command: str
    commit: str
    torch: str
    parameters: int
    bytes: int
    sha256: str
    losses: dict[str, float]


def describe(
    path: Path, folder: Path, parameters: int, script: str, run: Path, log: Path
) -> ShippedModel:
    """The card of a file or a folder in `folder`, trained by `script` in `run` with its metrics in
    `log`."""
    args = read_json(run / "args.json")
    made_with = args["provenance"]
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return ShippedModel(
        file=str(path.relative_to(folder)),
        command=training_command(script, args),
        commit=made_with["commit"],
        torch=made_with["torch"],
        parameters=parameters,
        bytes=sum(file.stat().st_size for file in files),
        sha256=hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest(),
        losses=first_losses(log / "metrics.jsonl"),
    )


def training_command(script: str, args: dict[str, Any]) -> str:
    """A training with the options that are not the defaults of its script."""
    options = import_module(script).Options
    defaults = asdict(options())
    words = ["python", "-m", script]
    for name in (field.name for field in fields(options) if field.name not in ELSEWHERE):
        if name in args and args[name] != defaults[name]:
            words += [f"--{name}", *as_words(args[name])]
    return shlex.join(words)


def first_losses(metrics: Path) -> dict[str, float]:
    """Step -> loss. Raises UserError when the log lacks one of `FIRST_STEPS`."""
    found = {line["step"]: line["loss"] for line in _read_lines(metrics) if "loss" in line}
    missing = [step for step in FIRST_STEPS if step not in found]
    if missing:
        raise UserError(f"{metrics} has no loss of step {missing[0]}; keep --log_interval 10")
    return {str(step): found[step] for step in FIRST_STEPS}


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is no log of a training ({error})") from None


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Raises UserError for a number that half precision cannot hold."""
    found = {key: value.to(DTYPE).contiguous() for key, value in state.items()}
    for key, value in found.items():
        if not value.isfinite().all():
            raise UserError(f"{key} exceeds the range of half precision")
    return found


def data_digest(folder: Path, *patterns: str) -> str:
    """SHA-256 of names and contents of the files that a training reads of a dataset."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def write_card(
    folder: Path, data: Path, digest: str, models: Mapping[str, ShippedModel], **more: Any
) -> Path:
    """The card of models that learned from the dataset in `data`; returns its path."""
    card = {
        "data": {"made_with": read_json(data / "dataset.json"), "sha256": digest},
        "models": {name: asdict(model) for name, model in models.items()},
        **more,
    }
    write_json(folder / CARD_FILE, card)
    return folder / CARD_FILE
