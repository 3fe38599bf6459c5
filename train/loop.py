"""The one training loop: precision, schedule, logging, validation, checkpoints, resume.

A script brings a `Task` (train/task.py): what a step computes, what validation measures, what a
checkpoint is; everything else is here, so that all models train, log and resume alike. All
randomness of a step follows from (seed, step, rank), so a resumed run repeats the numbers of an
unbroken one. SIGINT and SIGTERM stop it after a step, in a state that can be resumed.

A run may be killed anywhere: the state is the last thing that a step writes, what it has made
superfluous goes away afterwards, and a resumed run does both again from the state's step on.
"""

import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from train.fingerprints import check_unchanged
from train.interrupts import StopSignals
from train.optimisation import StepGuard, WeightAverage, learning_rate, mean_result
from train.pace import Pace, announcement, first_checkpoint
from train.run_state import (
    STATE_FILE,
    check_finite,
    check_resumable,
    read_state,
    remove_states,
    write_state,
)
from train.task import LoopOptions, StepResult, Task, options_to_args
from train.trackers import MetricsFile, close_trackers, start_trackers, tracker_of
from utils.devices import pick_device
from utils.errors import UserError
from utils.files import check_output_dir, member, write_json
from utils.locks import FolderLock
from utils.processes import average_gradients, gather_states, together
from utils.seeding import seed_everything

INTERIM = "interim"  # the folder of the checkpoint of an interrupted run


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
    if device.index is not None and accelerator.num_processes > 1:
        raise UserError(
            f"--device {options.device} names one GPU for {accelerator.num_processes} processes; "
            "leave it out, and each takes its own (CUDA_VISIBLE_DEVICES says which there are)"
        )
    if accelerator.is_main_process:
        FolderLock(options.save_dir).check()
        check_output_dir(options.save_dir, options.overwrite, options.resume)
        if options.resume:
            check_resumable(options, folders)
    with together():
        accelerator.wait_for_everyone()
    seed_everything(options.seed)
    return accelerator


class Trainer:
    """Runs a `Task` for ``options.num_steps`` optimiser steps.

    `inspect` is called in the main process with every checkpoint that `save_interval` asks for.
    recorded: the options are in an ``args.json`` already, as far as anybody reads it. inputs: the
    `fingerprints` of what the task reads, which stay the same where the run is resumed.
    """

    def __init__(
        self,
        task: Task,
        options: LoopOptions,
        accelerator: Accelerator,
        inspect: Callable[[Path], None] | None = None,
        recorded: bool = False,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        self.task, self.options, self.accelerator = task, options, accelerator
        self.inspect, self.main = inspect, accelerator.is_main_process
        self.inputs = dict(inputs or {})
        self.save_dir = Path(options.save_dir)
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
        self.guard = StepGuard(options.max_bad_steps)
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.superseded = ""  # the best checkpoint before, where no interval asked for it
        self.recorded = recorded or options.resume

    def run(self) -> Path:
        """Train to the end; returns the path of the last checkpoint.

        Raises UserError where another run uses the folder or this one diverges, and SystemExit
        with code 128 + N when signal N has stopped it.
        """
        with FolderLock(self.save_dir) if self.main else nullcontext():
            return self._run()

    def _run(self) -> Path:
        self._open()
        started = self.saved = time.monotonic()
        first = first_checkpoint(self.options, self.step, self.best is not None)
        pace = Pace(self.options, self.step, first, self.accelerator.device.type)
        if self.main:
            print(announcement(self.options, self.step, first), flush=True)
        batches, path, stopped = self._endless_batches(), self.save_dir, 0
        with StopSignals() as stop, self._progress() as progress:
            while self.step < self.options.num_steps and not stopped:
                result = self._optimise([next(batches) for _ in range(self.options.accumulate)])
                self.step += 1
                progress.update()
                for line in pace.tell(self.step) if self.main else []:
                    tqdm.write(line)
                if self._due(self.options.log_interval) or self.step == 1:
                    self._log(result, progress)
                improved = self._due(self.options.val_interval, at_end=True) and self._validate()
                stopped, wanted = stop.agreed(self.accelerator, improved or self._autosave_due())
                due = self._due(self.options.save_interval, at_end=True)
                if due or stopped:
                    path = self._write_checkpoint(interim=not due)
                if due or stopped or wanted:
                    self._write_state(interrupted=bool(stopped) and not due)
                if due and self.inspect is not None and self.main and not stopped:
                    self.inspect(path)
        close_trackers(self.accelerator)
        if stopped:
            self._leave(stopped, path)
        if self.main:
            print(f"trained to step {self.step} in {time.monotonic() - started:.0f} s: {path}")
        return path

    def _open(self) -> None:
        """Take up the state of a resumed run, or make the folder of a new one."""
        if self.main:  # again, as another run may have used it while the data were loaded
            check_output_dir(self.save_dir, self.options.overwrite, self.options.resume)
        interrupted = self.options.resume and self._resume()
        if not self.main:
            return
        if self.options.resume:
            self._tidy(interrupted)
        else:
            remove_states(self.save_dir)  # those of a run which is overwritten
        self.metrics = MetricsFile(self.save_dir, self.step)
        start_trackers(self.accelerator, self.save_dir, self.options, self.step)

    def _progress(self) -> tqdm:
        total, done = self.options.num_steps, self.step
        return tqdm(total=total, initial=done, disable=not self.main, desc="train")

    def _due(self, interval: int, at_end: bool = False) -> bool:
        return self.step % interval == 0 or (at_end and self.step == self.options.num_steps)

    def _autosave_due(self) -> bool:
        minutes = (time.monotonic() - self.saved) / 60
        return self.main and 0 < self.options.autosave_minutes <= minutes

    def _leave(self, number: int, path: Path) -> None:
        if self.main:
            name = signal.Signals(number).name
            print(
                f"stopped by {name} after step {self.step} of {self.options.num_steps}, saved in "
                f"{path}; the same command with --resume goes on from there"
            )
        raise SystemExit(128 + number)

    def _endless_batches(self) -> Iterator[Any]:
        per_epoch = self.task.batches_per_epoch()
        epoch, skip = divmod(self.step * self.options.accumulate, per_epoch)
        while True:
            for index, batch in enumerate(self.task.batches(epoch)):
                if index >= skip:
                    yield batch
            epoch, skip = epoch + 1, 0

    def _optimise(self, batches: list[Any]) -> StepResult | None:
        """One step; None where it was bad and changed nothing."""
        options = self.options
        rank_seed = (options.seed * 1_000_003 + self.step) * 1009 + self.accelerator.process_index
        torch.manual_seed(rank_seed % 2**63)
        rng = torch.Generator(self.accelerator.device).manual_seed(rank_seed % 2**63)
        rate = learning_rate(options, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        result = mean_result([self._backward(batch, rng) for batch in batches])
        loss = average_gradients(self.accelerator, self.task.module, result.loss)
        norm = nn.utils.clip_grad_norm_(self.parameters, options.grad_clip or float("inf"))
        figures = torch.stack([loss.float(), norm.float()]).tolist()
        if self.guard.is_bad(*figures):
            last = self.step + 1 == options.num_steps
            warning = self.guard.tell(self.step + 1, *figures, rate, batches[-1], last)
            if self.main:
                tqdm.write(warning)
            return None
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.task.module)
        return StepResult(loss, {**result.metrics, "grad_norm": norm, "lr": rate})

    def _backward(self, batch: Any, rng: torch.Generator) -> StepResult:
        """Add the gradients of one of the step's batches, whose graph is then freed."""
        with self.accelerator.autocast():
            result = self.task.step(batch, self.step, rng)
        (result.loss / self.options.accumulate).backward()
        return StepResult(result.loss.detach(), result.metrics)

    def _log(self, result: StepResult | None, progress: tqdm) -> None:
        values = {"bad_steps": float(self.guard.total)} if self.guard.total else {}
        if result is not None:
            values |= {"loss": result.loss.item()}
            values |= {name: float(value) for name, value in result.metrics.items()}
        self._record(values)
        shown = [name for name in ("loss", *self.task.shown) if name in values]
        progress.set_postfix({name.split("/")[-1]: f"{values[name]:.4f}" for name in shown})

    def _record(self, values: dict[str, float]) -> None:
        if self.main:
            self.metrics.log(self.step, values)
            self.accelerator.log(values, step=self.step)

    def _validate(self) -> bool:
        """Is there a new best checkpoint? Only the main process says so."""
        with torch.no_grad():
            figures = self._on_average(self.task.validate)
        if not figures or not self.main:
            return False
        self._record({f"val/{name}": value for name, value in figures.items()})
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        tqdm.write(f"step {self.step}: val {shown}")
        if not math.isfinite(figures["score"]):
            tqdm.write(f"warning: step {self.step} is not kept as the best; its score is no number")
            return False
        if self.best is not None and figures["score"] >= self.best["score"]:
            return False
        path = self._write_checkpoint(best=True)
        if self.best is not None and self.best["step"] % self.options.save_interval:
            self.superseded = self.best["path"]
        self.best = {"step": self.step, "path": path.name, **figures}
        return True

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

    def _write_checkpoint(self, best: bool = False, interim: bool = False) -> Path:
        """interim: one that only an interruption asks for, in a folder that goes away again."""
        if not self.main:
            return self.save_dir
        check_finite(self.task.module, self.step)
        average = self.average.module if self.average else None
        folder = self.save_dir / INTERIM if interim else self.save_dir
        self.recorded |= not interim
        return self.task.save(folder, self.step, average, best)

    def _write_state(self, interrupted: bool) -> None:
        """All that a resumed run needs; after it the files of this step are complete."""
        tasks = gather_states(self.accelerator, self.task.state_dict())
        self.saved = time.monotonic()
        if not self.main:
            return
        if not self.recorded:
            args = options_to_args(self.options) | {"step": 0}
            write_json(self.save_dir / "args.json", args)
            self.recorded = True
        self.metrics.sync()
        average = self.average.module.state_dict() if self.average else None
        state = {
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "module": self.task.module.state_dict(),
            "average": average,
            "average_updates": self.average.updates if self.average else 0,
            "tasks": tasks,
            "inputs": self.inputs,
            "guard": self.guard.state_dict(),
            "best": self.best,
            "superseded": self.superseded,
            "interrupted": interrupted,
        }
        write_state(self.save_dir, state)
        self._tidy(interrupted)

    def _tidy(self, interrupted: bool) -> None:
        """What the state has made superfluous goes away."""
        if self.best is not None:
            write_json(self.save_dir / "best.json", self.best)
        old = self._file(self.superseded)
        if old is not None and old.is_file() and old.name != (self.best or {}).get("path"):
            old.unlink()
        if not interrupted:
            shutil.rmtree(self.save_dir / INTERIM, ignore_errors=True)

    def _file(self, name: str) -> Path | None:
        """Raises UserError for a name in a state that leads out of the folder."""
        return member(self.save_dir, name, self.save_dir / STATE_FILE) if name else None

    def _resume(self) -> bool:
        """Take up the newest sound state; returns whether it is that of an interruption."""
        state, warning = read_state(self.save_dir)  # every process copies it to its own device
        path, processes = self.save_dir / STATE_FILE, self.accelerator.num_processes
        if warning and self.main:
            print(f"warning: {warning}; going on from step {state['step']}, the state before")
        tasks = state["tasks"] if "tasks" in state else [state["task"]] * processes
        if len(tasks) != processes:
            raise UserError(
                f"--resume: {path} is of a training with {len(tasks)} processes, and this one has "
                f"{processes}; start as many, as each has a memory and random numbers of its own"
            )
        check_unchanged(state.get("inputs", {}), self.inputs)
        try:
            self.task.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None and state["average"] is not None:
                self.average.module.load_state_dict(state["average"])
                self.average.updates = state["average_updates"]
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--resume: {path} is of another architecture ({reason})") from None
        self.task.load_state_dict(tasks[self.accelerator.process_index])
        if "guard" in state:
            self.guard.load_state_dict(state["guard"])
        self.step, self.best = state["step"], state["best"]
        self.superseded = state.get("superseded", "")
        for name in (self.superseded, (self.best or {}).get("path", "")):
            self._file(name)
        return bool(state.get("interrupted"))
