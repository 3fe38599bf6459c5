"""What a training script brings to the loop, and the options that all of them share."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from train.trackers import PLATFORMS
from utils.devices import CudaOptions
from utils.options import option
from utils.outputs import ResumeOptions
from utils.provenance import provenance
from utils.seeding import SeedOptions


@dataclass
class LoopOptions(SeedOptions, CudaOptions, ResumeOptions):
    """Options that every training script shares."""

    save_dir: str = option(
        "", "folder for checkpoints, options and logs", required=True, free="always"
    )
    precision: str = option(
        "auto", "number type of the networks; auto = bf16 on CUDA", choices=("auto", "fp32", "bf16")
    )
    num_steps: int = option(10_000, "optimiser steps", minimum=1, free="upwards")
    batch_size: int = option(64, "motions per step and process", minimum=1)
    accumulate: int = option(1, "batches whose gradients make up one step", minimum=1)
    lr: float = option(1e-4, "peak learning rate", minimum=0)
    lr_schedule: str = option(
        "constant", "after warm-up", choices=("constant", "linear", "cosine", "milestones")
    )
    lr_milestones: list[int] = option([], "steps that multiply the rate by lr_factor", minimum=1)
    lr_factor: float = option(0.1, "factor of the rate at lr_milestones", minimum=0, maximum=1)
    lr_anneal_steps: int = option(0, "upstream's name: linear decay over N steps if > 0", minimum=0)
    warmup_steps: int = option(0, "linear warm-up, in steps", minimum=0)
    weight_decay: float = option(0.0, "of AdamW", minimum=0)
    adam_beta2: float = option(0.999, "of AdamW", minimum=0, maximum=1)
    grad_clip: float = option(0.0, "largest gradient norm; 0 = off", minimum=0)
    use_ema: bool = option(False, "keep an average of the weights and prefer it for sampling")
    avg_model_beta: float = option(0.9999, "decay of that average per step", minimum=0, maximum=1)
    log_interval: int = option(10, "steps between logged figures", minimum=1, free="always")
    val_interval: int = option(
        500, "steps between validations on the val split", minimum=1, free="resume"
    )
    save_interval: int = option(50_000, "steps between checkpoints", minimum=1, free="resume")
    autosave_minutes: float = option(
        10.0,
        "minutes between states that --resume goes on from; 0 = with checkpoints only",
        minimum=0,
        free="always",
    )
    max_bad_steps: int = option(
        3,
        "steps in a row without a finite loss and gradient that are left out before the run stops",
        minimum=1,
        free="resume",
    )
    train_platform_type: str = option(
        "TensorboardPlatform", "tracker", choices=tuple(PLATFORMS), free="always"
    )


@dataclass(frozen=True)
class StepResult:
    """`loss` is a scalar with gradient; `metrics` are detached scalars or numbers for the log."""

    loss: Tensor
    metrics: dict[str, Tensor | float]


class Task(Protocol):
    """What one training script adds to the loop."""

    module: nn.Module  # holds the parameters to train
    shown: Sequence[str]  # metrics that the progress bar shows beside the loss

    def batches(self, epoch: int) -> Iterator[Any]:
        """One shuffled pass over the data; the same for the same epoch."""

    def batches_per_epoch(self) -> int: ...

    def step(self, batch: Any, step: int, rng: torch.Generator) -> StepResult: ...

    def validate(self) -> dict[str, float]:
        """Figures on the val split; the key ``score`` (lower is better) picks the best one."""

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        """Write a checkpoint that the loaders read; returns its path. best: the best on val."""

    def state_dict(self) -> dict[str, Any]:
        """What the task must remember across a resume besides the weights."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class PlainTask:
    """What most tasks have in common: nothing to show, and no state besides the weights."""

    shown: Sequence[str] = ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


def options_to_args(options: LoopOptions) -> dict[str, Any]:
    """What goes into ``args.json``."""
    return asdict(options) | {"provenance": provenance()}
