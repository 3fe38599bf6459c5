"""Kill commands anywhere and let them go on: does the end equal that of a run nobody disturbed?

    python -m tests.kills --kills 200 --folder /tmp/kills

A command is killed at a random instant, before one of its file operations (`OPERATIONS`, every
boundary between two states of the disk), or told to stop by SIGTERM; then the same command goes on,
as a sweep would start it, and may be killed again. At the end weights, states, metrics, options and
generated samples are compared with those of the unbroken run, bit by bit. Nothing else may lie in
the folder. Samples, which no run goes on with, are the same bits after every kill, or absent.
tests/kill_commands.py lists the commands. They are forked from this process, which has loaded all
modules, so that a start takes no time; it must not compute anything itself.
"""

from utils.start import entry_point

import math
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

from tests.kill_commands import NAMES, Command, commands, make_workspace
from tests.train.scripts import run_main
from train.run_state import STATE_FILE
from utils.errors import UserError
from utils.files import load_tensors, read_json
from utils.options import option, parse_options

# Every change of the disk that another process could see goes through one of these.
OPERATIONS = ("replace", "rename", "unlink", "remove", "rmdir", "symlink", "fsync", "mkdir")
PATIENCE = 600.0  # seconds that a command may take; a process that is left alone must end, too
LAUNCHER = 30.0  # seconds after which a launcher stops what waits for a process that never came
KILLS_IN_A_ROW = 3


@dataclass
class Options:
    kills: int = option(20, "kills over all commands", minimum=1)
    folder: str = option("", "an empty folder to work in", required=True)
    commands: list[str] = option([], "of which commands; none = all", choices=NAMES)
    seed: int = option(0, "of commands, instants and boundaries", minimum=0)


@dataclass(frozen=True)
class Kill:
    """kind: ``instant`` (after `at` seconds), ``boundary`` (before file operation number `at`) or
    ``stop`` (SIGTERM after `at` seconds); rank: the process that is hit."""

    kind: str
    at: float
    rank: int = 0


def count_operations(before: Callable[[int], None]) -> None:
    """Call `before` with the number of each of `OPERATIONS` that this process is about to do."""
    number = 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **further: object) -> object:
            nonlocal number
            number += 1
            before(number)
            return function(*arguments, **further)

        return wrapped

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))


def fork(work: Callable[[], None], log: Path, watch: Callable[[int], None]) -> int:
    """Run `work` in a process of its own, whose output is appended to `log`."""
    child = os.fork()
    if child:
        return child
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = 1
    try:
        torch.set_num_threads(1)
        count_operations(watch)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code)


def start(command: Command, folder: Path, log: Path, kill: Kill | None, counts: Path) -> list[int]:
    """The processes of a command, as a launcher starts them."""
    words = command.words(folder)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    children = []
    for rank in range(command.processes):

        def watch(number: int, rank: int = rank) -> None:
            if kill is not None and (kill.kind, kill.rank, kill.at) == ("boundary", rank, number):
                os.kill(os.getpid(), signal.SIGKILL)
            if kill is None and rank == 0:
                counts.write_bytes(str(number).encode())

        def work(rank: int = rank) -> None:
            if command.processes > 1:
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                os.environ |= {"WORLD_SIZE": str(command.processes)}
            run_main(command.module, words)

        children.append(fork(work, log, watch))
    return children


def run(command: Command, folder: Path, log: Path, kill: Kill | None = None) -> list[int]:
    """Exit codes of all processes, negative for signals. Raises UserError where one hangs."""
    begun = time.monotonic()
    children = start(command, folder, log, kill, log.with_suffix(".count"))
    ended: dict[int, int] = {}
    failed = math.inf  # when a process failed
    sent = kill is None or kill.kind == "boundary"
    while len(ended) < len(children):
        time.sleep(0.002)
        passed = time.monotonic() - begun
        if kill is not None and not sent and passed >= kill.at:
            sent = True
            if children[kill.rank] not in ended:
                number = signal.SIGKILL if kill.kind == "instant" else signal.SIGTERM
                os.kill(children[kill.rank], number)
        for child in set(children) - set(ended):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                ended[child] = os.waitstatus_to_exitcode(status)
                failed = passed if ended[child] else failed
        if passed - failed > LAUNCHER:
            failed = math.inf
            for child in set(children) - set(ended):
                os.kill(child, signal.SIGTERM)
        if passed > PATIENCE:
            for child in set(children) - set(ended):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            raise UserError(f"{command.name} hangs; see {log}")
    return [ended[child] for child in children]


def contents(folder: Path) -> dict[str, object]:
    """All that a run left, by name; of options what does not say how and when it was started."""
    found: dict[str, object] = {}
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(root, name)
            key = str(path.relative_to(folder))
            if key.split("/")[0].endswith(("_weights_a", "_weights_b")):
                continue  # links lead there
            if path.name.startswith("resume"):
                if path.name == STATE_FILE:
                    found |= {f"{key}:{k}": v for k, v in flat(load_tensors(path))}
            elif path.name in ("args.json", "index.json"):
                content = read_json(path)
                content.pop("provenance", None)
                for option_name in ("save_dir", "resume", "overwrite", "out"):
                    content.pop(option_name, None)
                    content.get("options", {}).pop(option_name, None)
                found[key] = content
            else:  # a page and MoMask's opt.txt state the name of their folder
                found[key] = path.read_bytes().replace(folder.name.encode(), b"FOLDER")
    return found


def flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flat(part, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        yield from flat(dict(enumerate(value)), name)
    elif isinstance(value, torch.Tensor):
        yield name, value.numpy().tobytes()
    else:
        yield name, value


def different(folder: Path, reference: Path) -> list[str]:
    """The names of what two runs do not have in common."""
    one, other = contents(folder), contents(reference)
    return sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))


def half_written(folder: Path, reference: Path) -> list[str]:
    """The files that bear the name of one of the unbroken run and hold something else."""
    one, other = contents(folder), contents(reference)
    return sorted(key for key in one.keys() & other.keys() if one[key] != other[key])


def draw(command: Command, seconds: float, operations: int, rng: random.Random) -> Kill:
    rank = rng.randrange(command.processes)
    kind = rng.choice(("instant", "boundary", "boundary", "stop"))
    if kind == "boundary":
        return Kill(kind, rng.randint(1, operations))
    return Kill(kind, rng.uniform(0, seconds), rank)


def survive(command: Command, folder: Path, kills: Sequence[Kill], reference: Path) -> int:
    """Returns how many of `kills` hit. Raises UserError where the end is another one."""
    log = folder.with_suffix(".log")
    hit = 0
    for kill in kills:
        codes = run(command, folder, log, kill)
        hit += -signal.SIGKILL in codes or 128 + signal.SIGTERM in codes or -signal.SIGTERM in codes
        if "Traceback" in log.read_text(encoding="utf-8", errors="replace"):
            raise UserError(f"{command.name} ended in a traceback after {kills}; see {log}")
        if command.samples and (names := half_written(folder, reference)):
            raise UserError(f"{command.name} left {', '.join(names)} unlike the rest after {kill}")
    codes = run(command, folder, log)
    if any(codes):
        raise UserError(f"{command.name} did not go on after {kills}; see {log}")
    if names := different(folder, reference):
        raise UserError(f"{command.name}: {', '.join(names[:5])} differ after {kills}; see {log}")
    return hit


def unbroken(root: Path, command: Command) -> Path:
    """The folder of the run that nobody disturbs; its name is part of no other word."""
    return root / f"{command.name}_whole"


def campaign(options: Options) -> int:
    """Kill until `options.kills` have hit; returns how many did."""
    root, rng = Path(options.folder).absolute(), random.Random(options.seed)
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise UserError(f"--folder {root} is not empty; name another")
    chosen = options.commands or NAMES
    made = root / "workspace.log"
    if chosen != ["loop"]:
        child = fork(lambda: make_workspace(root), made, lambda number: None)
        if os.waitpid(child, 0)[1]:
            raise UserError(f"the models of the test could not be made; see {made}")
    begun = time.monotonic()
    known: list[tuple[Command, float, int]] = []
    for command in [command for command in commands(root) if command.name in chosen]:
        import_module(command.module)
        reference, log = unbroken(root, command), root / f"{command.name}.log"
        moment = time.monotonic()
        if any(run(command, reference, log)):
            raise UserError(f"{command.name} failed undisturbed; see {log}")
        operations = int(log.with_suffix(".count").read_bytes())
        known.append((command, time.monotonic() - moment, operations))
        print(f"{command.name}: {known[-1][1]:.1f} s, {operations} file operations", flush=True)
    hits, chain, kinds = 0, 0, {"instant": 0, "boundary": 0, "stop": 0}
    while hits < options.kills:
        command, seconds, operations = known[chain % len(known)]
        kills = [draw(command, seconds, operations, rng) for _ in range(KILLS_IN_A_ROW)]
        folder = root / f"{command.name}_{chain:04d}"
        hit = survive(command, folder, kills, unbroken(root, command))
        hits, chain = hits + hit, chain + 1
        for kill in kills:
            kinds[kill.kind] += 1
        shutil.rmtree(folder)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        each = (time.monotonic() - begun) / max(1, hits)
        busy = (used.ru_utime + used.ru_stime) / max(1, hits)
        print(f"{hits} kills survived ({command.name}): {each:.1f} s each, {busy:.1f} s of a core")
        sys.stdout.flush()  # a fork must not take unwritten lines with it
    print(f"tried: {kinds}; 200 kills would take {200 * each / 60:.0f} min", flush=True)
    return hits


@entry_point
def main() -> None:
    campaign(parse_options(Options, description=__doc__))


if __name__ == "__main__":
    main()
