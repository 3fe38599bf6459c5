"""The one training loop: precision, schedule, logging, validation, checkpoints, resume.

A script brings a `Task` (what a step computes, what validation measures, what a checkpoint is);
everything else is here, so that all models train, log and resume alike. All randomness of a step
follows from (seed, step, rank), so a resumed run repeats the numbers of an unbroken one. SIGINT
and SIGTERM stop it after a step, in a state that can be resumed.
"""

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from train.interrupts import StopSignals
from train.pace import Pace, announcement, first_checkpoint
from train.run_state import STATE_FILE, check_finite, check_resumable
from train.trackers import (
    PLATFORMS,
    MetricsFile,
    close_trackers,
    start_trackers,
    tracker_of,
)
from utils.devices import DeviceOptions, pick_device
from utils.errors import UserError
from utils.files import check_output_dir, load_tensors, save_tensors, write_json
from utils.options import option
from utils.processes import average_gradients
from utils.seeding import SeedOptions, seed_everything


@dataclass
class LoopOptions(SeedOptions, DeviceOptions):
    """Options that every training script shares."""

    save_dir: str = option(
        "", "folder for checkpoints, options and logs", required=True, free="always"
    )
    overwrite: bool = option(False, "write into an existing save_dir", free="always")
    resume: bool = option(False, "go on from the newest state in save_dir", free="always")
    cuda: bool = option(True, "false forces the CPU", free="always")
    precision: str = option(
        "auto", "number type of the networks; auto = bf16 on CUDA", choices=("auto", "fp32", "bf16")
    )
    num_steps: int = option(10_000, "optimiser steps", minimum=1, free="upwards")
    batch_size: int = option(64, "motions per step and process", minimum=1)
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


def start_run(options: LoopOptions, folders: Sequence[str] = ("",)) -> Accelerator:
    """Seed, pick device and precision, and check the output folder, before any long work.

    folders: those in save_dir that have a state of their own, where a run trains several networks.
    """
    device = pick_device(options.device, options.cuda)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    bf16 = options.precision == "bf16" or (options.precision == "auto" and device.type == "cuda")
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if bf16 else "no",
        log_with=tracker_of(options.train_platform_type),
        project_dir=options.save_dir,
    )
    if accelerator.is_main_process:
        check_output_dir(options.save_dir, options.overwrite, options.resume)
        if options.resume:
            check_resumable(options, folders)
    accelerator.wait_for_everyone()
    seed_everything(options.seed)
    return accelerator


def learning_rate(options: LoopOptions, step: int) -> float:
    """Rate at 0-based `step`: linear warm-up, then the schedule down to 0 at the last step."""
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    if options.lr_anneal_steps:
        return options.lr * max(0.0, 1 - step / options.lr_anneal_steps)
    done = (step - options.warmup_steps) / max(1, options.num_steps - options.warmup_steps)
    if options.lr_schedule == "linear":
        return options.lr * (1 - done)
    if options.lr_schedule == "cosine":
        return options.lr * 0.5 * (1 + math.cos(math.pi * done))
    if options.lr_schedule == "milestones":
        return options.lr * options.lr_factor ** sum(step >= m for m in options.lr_milestones)
    return options.lr


class WeightAverage:
    """Exponential moving average of a module's parameters, with a warm-up of the decay.

    The decay is min(beta, (1 + n) / (10 + n)) at update n, so that short runs are not dominated
    by the initial weights; for long runs it is beta.
    """

    def __init__(self, module: nn.Module, beta: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.beta, self.updates = beta, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.beta, (1 + self.updates) / (10 + self.updates))
        for mean, value in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


class Trainer:
    """Runs a `Task` for ``options.num_steps`` optimiser steps.

    `inspect` is called in the main process with every checkpoint that `save_interval` asks for.
    """

    def __init__(
        self,
        task: Task,
        options: LoopOptions,
        accelerator: Accelerator,
        inspect: Callable[[Path], None] | None = None,
    ) -> None:
        self.task, self.options, self.accelerator = task, options, accelerator
        self.inspect = inspect
        self.save_dir, self.state_file = Path(options.save_dir), Path(options.save_dir) / STATE_FILE
        self.parameters = [p for p in task.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=options.lr,
            weight_decay=options.weight_decay,
            betas=(0.9, options.adam_beta2),
        )
        self.average = (
            WeightAverage(task.module, options.avg_model_beta) if options.use_ema else None
        )
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.interim = ""  # a checkpoint that only an interruption asked for

    def run(self) -> Path:
        """Train to the end; returns the path of the last checkpoint.

        Raises SystemExit with code 128 + N when signal N has stopped it.
        """
        self._open()
        started, main = time.monotonic(), self.accelerator.is_main_process
        first = first_checkpoint(self.options, self.step, self.best is not None)
        pace = Pace(self.options, self.step, first, self.accelerator.device.type)
        if main:
            print(announcement(self.options, self.step, first), flush=True)
        batches, path, stopped = self._endless_batches(), self.save_dir, 0
        with StopSignals() as stop, self._progress() as progress:
            while self.step < self.options.num_steps and not stopped:
                result = self._optimise(next(batches))
                self.step += 1
                progress.update()
                for line in pace.tell(self.step) if main else []:
                    tqdm.write(line)
                if self._due(self.options.log_interval) or self.step == 1:
                    self._log(result, progress)
                if self._due(self.options.val_interval, at_end=True):
                    self._validate()
                stopped = stop.agreed(self.accelerator)
                if self._due(self.options.save_interval, at_end=True):
                    path = self._save()
                    if self.inspect is not None and main and not stopped:
                        self.inspect(path)
                elif stopped:
                    path = self._save(interim=True)
        close_trackers(self.accelerator)
        if stopped:
            self._leave(stopped)
        if main:
            print(f"trained to step {self.step} in {time.monotonic() - started:.0f} s: {path}")
        return path

    def _open(self) -> None:
        """Take up the state of a resumed run, or make the folder of a new one."""
        if self.options.resume:
            self._resume()
        if not self.accelerator.is_main_process:
            return
        self.save_dir.mkdir(parents=True, exist_ok=True)
        if not self.options.resume:
            self.state_file.unlink(missing_ok=True)  # that of a run which is overwritten
        self.metrics = MetricsFile(self.save_dir, self.step)
        start_trackers(self.accelerator, self.save_dir, self.options, self.step)

    def _progress(self) -> tqdm:
        main = self.accelerator.is_main_process
        return tqdm(total=self.options.num_steps, initial=self.step, disable=not main, desc="train")

    def _due(self, interval: int, at_end: bool = False) -> bool:
        return self.step % interval == 0 or (at_end and self.step == self.options.num_steps)

    def _leave(self, number: int) -> None:
        if self.accelerator.is_main_process:
            name = signal.Signals(number).name
            print(
                f"stopped by {name} after step {self.step} of {self.options.num_steps}, saved in "
                f"{self.save_dir}; the same command with --resume goes on from there"
            )
        raise SystemExit(128 + number)

    def _endless_batches(self) -> Iterator[Any]:
        per_epoch = self.task.batches_per_epoch()
        epoch, skip = divmod(self.step, per_epoch)
        while True:
            for index, batch in enumerate(self.task.batches(epoch)):
                if index >= skip:
                    yield batch
            epoch, skip = epoch + 1, 0

    def _optimise(self, batch: Any) -> StepResult:
        options = self.options
        rank_seed = (options.seed * 1_000_003 + self.step) * 1009 + self.accelerator.process_index
        torch.manual_seed(rank_seed % 2**63)
        rng = torch.Generator(self.accelerator.device).manual_seed(rank_seed % 2**63)
        rate = learning_rate(options, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.accelerator.autocast():
            result = self.task.step(batch, self.step, rng)
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        average_gradients(self.accelerator, self.task.module)
        norm = nn.utils.clip_grad_norm_(self.parameters, options.grad_clip or float("inf"))
        if not (torch.isfinite(result.loss) and torch.isfinite(norm)):
            raise UserError(
                f"the loss of step {self.step + 1} is {result.loss.item():.4g}, its gradient norm "
                f"{norm.item():.4g} at learning rate {rate:.3g}; nothing of it was kept. Start "
                "again with a lower --lr, more --warmup_steps, --grad_clip or --precision fp32"
            )
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.task.module)
        return StepResult(result.loss, {**result.metrics, "grad_norm": norm, "lr": rate})

    def _log(self, result: StepResult, progress: tqdm) -> None:
        values = {"loss": result.loss.item()}
        values |= {name: float(value) for name, value in result.metrics.items()}
        self._record(values)
        shown = [name for name in ("loss", *self.task.shown) if name in values]
        progress.set_postfix({name.split("/")[-1]: f"{values[name]:.4f}" for name in shown})

    def _record(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.metrics.log(self.step, values)
            self.accelerator.log(values, step=self.step)

    def _validate(self) -> None:
        with torch.no_grad():
            figures = self._on_average(self.task.validate)
        if not figures or not self.accelerator.is_main_process:
            return
        self._record({f"val/{name}": value for name, value in figures.items()})
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        tqdm.write(f"step {self.step}: val {shown}")
        if not math.isfinite(figures["score"]):
            tqdm.write(f"warning: step {self.step} is not kept as the best; its score is no number")
        elif self.best is None or figures["score"] < self.best["score"]:
            path = self._write_checkpoint(best=True)
            if self.best is not None and self.best["step"] % self.options.save_interval:
                self._forget(self.best["path"])
            self.best = {"step": self.step, "path": path.name, **figures}
            write_json(self.save_dir / "best.json", self.best)
            self._write_state()

    def _on_average(self, function: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Call `function` with the averaged weights in place, where an average is kept."""
        if self.average is None:
            return function()
        current = {k: v.clone() for k, v in self.task.module.state_dict().items()}
        self.task.module.load_state_dict(self.average.module.state_dict())
        try:
            return function()
        finally:
            self.task.module.load_state_dict(current)

    def _forget(self, name: str) -> None:
        """Remove a superseded checkpoint that no save interval asked for."""
        if name and (self.save_dir / name).is_file():
            (self.save_dir / name).unlink()

    def _save(self, interim: bool = False) -> Path:
        """Write a checkpoint and the state; an interim one is removed by the next."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return self.save_dir
        path, superseded = self._write_checkpoint(best=False), self.interim
        self.interim = path.name if interim else ""
        self._write_state()
        if superseded not in (path.name, (self.best or {}).get("path")):
            self._forget(superseded)
        return path

    def _write_checkpoint(self, best: bool) -> Path:
        check_finite(self.task.module, self.step)
        average = self.average.module if self.average else None
        return self.task.save(self.save_dir, self.step, average, best)

    def _write_state(self) -> None:
        """All that a resumed run needs."""
        average = self.average.module if self.average else None
        state = {
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "module": self.task.module.state_dict(),
            "average": average.state_dict() if average else None,
            "average_updates": self.average.updates if self.average else 0,
            "task": self.task.state_dict(),
            "best": self.best,
            "interim": self.interim,
        }
        save_tensors(self.state_file, state)

    def _resume(self) -> None:
        path = self.state_file
        if not path.is_file():
            raise UserError(f"--resume: {path} does not exist; start without --resume")
        state = load_tensors(path)  # onto the CPU: every process copies it to its own device
        try:
            self.task.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--resume: {path} is of another architecture ({reason})") from None
        if self.average is not None and state["average"] is not None:
            self.average.module.load_state_dict(state["average"])
            self.average.updates = state["average_updates"]
        self.task.load_state_dict(state["task"])
        self.step, self.best = state["step"], state["best"]
        self.interim = state.get("interim", "")


def options_to_args(options: LoopOptions) -> dict[str, Any]:
    """What goes into ``args.json``."""
    return asdict(options)
