"""Stages of an experiment: ordinary commands, checked before and run one by one or one per GPU."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any, TextIO

import torch

from train.run_state import states_in
from utils.bounded import read_yaml
from utils.commands import typed
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.locks import FolderLock
from utils.options import changed_options, did_you_mean, option, parse_options
from utils.parents import bound_to_parent
from utils.places import here_or_project
from utils.threads import share_threads
from utils.times import format_time

POLL_SECONDS = 0.05
DEEPEST = 5  # files of options that name one another


@dataclass
class DryRunOptions:
    """For every script that runs commands."""

    dry_run: bool = option(False, "print the commands and about how long they take")


@dataclass
class RunnerOptions(DryRunOptions):
    """For every script whose commands may run beside each other."""

    save_dir: str = option("", "folder of runs, logs and tables", required=True)
    jobs: int = option(0, "runs at a time; 0 = one per GPU, or one on a CPU", minimum=0)


@dataclass(frozen=True)
class Command:
    """What follows ``python -m``, and the options that it stands for."""

    arguments: list[str]
    options: Any


def as_words(value: Any) -> list[str]:
    """An option's value as words of a command line."""
    return list(map(str, value if isinstance(value, list) else [value]))


def options_of(script: str) -> type:
    """The options of the command that follows ``python -m``."""
    return import_module(script).Options


def section(script: str, content: Any, where: str, *reserved: str) -> dict[str, Any]:
    """Options of a script from a part of a YAML file, over those of the file of its `config`.

    Raises UserError for names that the script lacks, for those that are set elsewhere, and for
    files that name each other without an end.
    """
    if not isinstance(content or {}, dict):
        raise UserError(f"{where} must hold `option: value` lines, not {content!r}")
    own = dict(content or {})
    config = own.pop("config", None)
    known = {field.name for field in fields(options_of(script))}
    for name in own:
        if name not in known:
            raise UserError(
                f"{where}: {name} is no option of python -m {script}{did_you_mean(name, known)}"
            )
        if name in reserved:
            raise UserError(f"{where}: {name} cannot be set here")
    if config is None:
        return own
    if where.count(": config ") == DEEPEST:
        raise UserError(f"{where}: config {config}: the files name each other in a circle")
    file = f"{where}: config {config}"
    start = read_yaml(here_or_project(str(config)), file)
    return section(script, start, file, *reserved) | own


def command(script: str, values: Mapping[str, Any], where: str) -> Command:
    """The command of a script for these options; None leaves an option out.

    Raises UserError for whatever the script would refuse.
    """
    given = {name: as_words(value) for name, value in values.items() if value is not None}
    arguments = [word for name, words in given.items() for word in (f"--{name}", *words)]
    try:
        options = parse_options(options_of(script), arguments)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Command([script, *arguments], options)


def refuse_changes(record: Path, wanted: Any) -> None:
    """Raises UserError when a record of options (args.json, or the index of pairs) has others."""
    if not record.is_file():
        return
    found = read_json(record)
    if changed := changed_options(found.get("options", found), wanted):
        raise UserError(
            f"{record.parent} was made with other options ({', '.join(changed)}); repeat them, "
            "delete it, or name another save_dir"
        )


def go_on(wanted: Command, folder: Path) -> list[str]:
    """The arguments of a training, from its newest state where an earlier start left one.

    What was cut off before its first checkpoint starts again.
    """
    if any(states_in(path) for path in (folder, *folder.rglob("*/"))):
        return [*wanted.arguments, "--resume"]
    return [*wanted.arguments, "--overwrite"] if folder.is_dir() else wanted.arguments


def is_stale(product: Path, wanted: Any, models: Sequence[Path]) -> bool:
    """Is an evaluation of other options, or older than a model?"""
    if not product.is_file() or not all(model.exists() for model in models):
        return False
    newest = max(model.stat().st_mtime for model in models)
    changed = changed_options(read_json(product)["options"], wanted)
    return newest > product.stat().st_mtime or bool(changed)


@dataclass(frozen=True)
class Stage:
    """`arguments` follow ``python -m``; `product` exists once the stage is complete.

    kind: stages of one kind take about the same time. stale: the product is there, but is to be
    made again. minutes: what it takes as far as is known beforehand, 0 = unknown. after: titles of
    all those that must have ended before it starts.
    """

    title: str
    product: Path
    arguments: list[str]
    kind: str = ""
    stale: bool = False
    minutes: float = 0.0
    after: frozenset[str] = frozenset()

    @property
    def done(self) -> bool:
        return self.product.is_file() and not self.stale

    def meets(self, other: "Stage") -> bool:
        """May both run at the same time?"""
        return self != other and self.title not in other.after and other.title not in self.after

    @property
    def command(self) -> str:
        return typed(f"python -m {shlex.join(self.arguments)}")


@dataclass(frozen=True)
class Running:
    """output: the log of the stage, read up to what has been shown; None where nothing is."""

    stage: Stage
    slot: int
    process: subprocess.Popen[bytes]
    started: float
    output: TextIO | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def show(self) -> None:
        """Copy what the stage has written since the last call to the screen."""
        if self.output is not None:
            print(self.output.read(), end="", flush=True)


class StageRunner:
    """Runs stages, `jobs` at a time (0 = one per GPU, or one on a CPU).

    Their output goes to ``folder/logs/TITLE.log``, with `show` that of the one which has run for
    longest to the screen as well, and the seconds that they took, over all their starts, to
    ``folder/seconds.json``.
    """

    def __init__(self, folder: Path, jobs: int = 0, show: bool = False) -> None:
        self.folder, self.gpus, self.show = folder, visible_gpus(), show
        self.jobs = jobs or max(1, len(self.gpus))
        times = folder / "seconds.json"
        self.seconds: dict[str, float] = read_json(times) if times.is_file() else {}

    def log_path(self, stage: Stage) -> Path:
        return self.folder / "logs" / f"{stage.title}.log"

    def run(self, stages: Sequence[Stage], chained: bool = False) -> list[Stage]:
        """Run those that are not done; returns those that failed.

        A failure stops no other stage, unless they are `chained`: then none starts after it.
        Whatever interrupts it also stops the stages that are running, and even a kill does. Raises
        UserError where another runner works in the folder.
        """
        with FolderLock(self.folder):
            return self._run(stages, chained)

    def _run(self, stages: Sequence[Stage], chained: bool) -> list[Stage]:
        waiting = [stage for stage in stages if not stage.done]
        finished = [stage for stage in stages if stage.done]
        failed: list[Stage] = []
        running: list[Running] = []
        total = len(waiting)
        try:
            while waiting or running:
                free = sorted(set(range(self.jobs)) - {job.slot for job in running})
                while free and (ready := startable(waiting, running)):
                    print(f"[{total - len(waiting) + 1}/{total}] {ready[0].title}")
                    print(f"    {ready[0].command}", flush=True)
                    waiting.remove(ready[0])
                    share = min(self.jobs, 1 + sum(ready[0].meets(other) for other in stages))
                    running.append(self._start(ready[0], free.pop(0), share))
                time.sleep(POLL_SECONDS)
                ended = [job for job in running if job.process.poll() is not None]
                running[0].show()  # one at a time, as progress bars rewrite their lines
                for job in ended:
                    job.show()
                    running.remove(job)
                    self._record(job)
                    (failed if job.process.returncode else finished).append(job.stage)
                    self._tell(job, finished, waiting, running)
                if failed and chained:
                    waiting.clear()
        finally:
            for job in running:
                job.process.terminate()
            for job in running:
                job.process.wait()
                self._record(job)
        return failed

    def show_plan(self, stages: Sequence[Stage], commands: bool, titles: bool = False) -> None:
        """Print how many stages remain and how long they may take; before, if asked to, all of
        them by title or with their commands."""
        finished = [stage for stage in stages if stage.done]
        todo = [stage for stage in stages if not stage.done]
        for stage in stages if titles or commands else []:
            seconds = self.expected(stage, finished)
            about = f": about {format_time(seconds)}" if seconds else ""
            print(f"{stage.title}{': finished' if stage.done else about}")
            if commands:
                print(f"    {stage.command}")
        left = self.remaining(finished, todo)
        about = f", about {format_time(left)}" if left else ""
        beside = f" with {self.jobs} at a time" if left and self.jobs > 1 else ""
        print(f"{len(todo)} of {len(stages)} commands remain{about}{beside}", flush=True)

    def remaining(self, finished: Sequence[Stage], todo: Sequence[Stage]) -> float | None:
        """Seconds that `todo` will take; None while a duration is unknown."""
        expected = [self.expected(stage, finished) for stage in todo]
        known = [seconds for seconds in expected if seconds is not None]
        if len(known) < len(expected):
            return None
        slots, ends = [0.0] * self.jobs, dict[str, float]()
        for stage, seconds in zip(todo, known, strict=True):
            free = min(slots)
            start = max([free, *(ends[title] for title in stage.after & ends.keys())])
            slots[slots.index(free)] = ends[stage.title] = start + seconds
        return max(slots)

    def expected(self, stage: Stage, finished: Sequence[Stage]) -> float | None:
        """Seconds of a stage: by finished ones of its kind, else as told before, else by any."""
        known = [other for other in finished if other.title in self.seconds]
        alike = [other for other in known if other.kind == stage.kind]
        if stage.minutes and not alike:
            return 60 * stage.minutes
        times = [self.seconds[other.title] for other in alike or known]
        return mean(times) if times else None

    def _start(self, stage: Stage, slot: int, share: int) -> Running:
        """share: how many stages, this one included, may have to share the cores. It follows from
        the plan, not from what runs now, as digits depend on the number of threads."""
        environment = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}  # lines come when they are due
        if self.gpus and self.jobs > 1:  # a stage that runs alone may use all of them
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        share_threads(environment, share)
        path = self.log_path(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        output = None
        with open(path, "ab") as log:
            log.write(f"{stage.command}\n".encode())
            log.flush()
            if self.show:
                # newline="": a progress bar rewrites its line with a bare carriage return
                output = open(path, encoding="utf-8", errors="replace", newline="")  # noqa: SIM115
                output.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                [sys.executable, "-m", *stage.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                **bound_to_parent(environment),
            )
        return Running(stage, slot, process, time.monotonic(), output)

    def _record(self, job: Running) -> None:
        """Add the time of this start to those of earlier ones."""
        if job.output is not None:
            job.output.close()
        title = job.stage.title
        self.seconds[title] = self.seconds.get(title, 0.0) + job.seconds
        write_json(self.folder / "seconds.json", self.seconds)

    def _tell(
        self,
        job: Running,
        finished: Sequence[Stage],
        waiting: Sequence[Stage],
        running: Sequence[Running],
    ) -> None:
        if job.process.returncode:
            path = self.log_path(job.stage)
            text = path.read_text(encoding="utf-8", errors="replace")
            last = text.rpartition(job.stage.command)[2]  # earlier starts are in it as well
            print(f"{job.stage.title} failed ({path}): {reason(last)}", flush=True)
            return
        print(f"{job.stage.title}: {format_time(job.seconds)}", end="")
        left = self.remaining(finished, [*waiting, *(job.stage for job in running)])
        print(f"; about {format_time(left)} left" if left else "", flush=True)


def startable(waiting: Sequence[Stage], running: Sequence[Running]) -> list[Stage]:
    """Those of `waiting` whose predecessors have ended."""
    open_ones = {stage.title for stage in waiting} | {job.stage.title for job in running}
    return [stage for stage in waiting if not stage.after & open_ones]


def visible_gpus() -> list[str]:
    """The names of the GPUs that a process may use, as CUDA_VISIBLE_DEVICES has them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return (named.split(",") if named else [str(index) for index in range(count)])[:count]


def reason(output: str) -> str:
    """The last error that an output tells, which may follow a progress bar; else its last line."""
    errors = re.findall(r"\w*[Ee]rror: .*", output)
    return (errors or [line for line in output.splitlines() if line.strip()] or ["no output"])[-1]
