"""Everything that docs/results.md reports, from the data to the tables, with one command.

    python -m train.reproduce --dry_run
    python -m train.reproduce --benchmark mocap --bvh_dir MOCAP

It says beforehand what it will run and about how long that takes; what is finished is skipped and
what was cut off goes on. MOCAP is the folder of docs/mocap.md. A benchmark is a list of stages,
configs/reproduce/NAME.yaml, each of them an ordinary command:

    - name: base
      script: train.train_mdm               what follows python -m
      options: {config: configs/mocap/mdm.yaml, save_dir: save/mc_base}
      product: model000004000.pt            the last file that it writes, in its save_dir or out
      minutes: 29                           on the machine of docs/results.md
    - name: captions
      ...
      used_by: dataset                      not needed any more once that stage is finished

In options, {bvh_dir} and {jobs} stand for those of this command. The sweeps come last; their
tables are the results.
"""

from utils.start import entry_point

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from train import sweep
from train.stages import Stage, StageRunner, command, go_on, refuse_changes
from utils.errors import UserError
from utils.options import option, parse_options
from utils.places import PROJECT_ROOT

CONFIGS = PROJECT_ROOT / "configs" / "reproduce"
BENCHMARKS = ("synthetic", "mocap")


@dataclass
class Options:
    benchmark: str = option("synthetic", "what to rerun", choices=(*BENCHMARKS, "both"))
    bvh_dir: str = option("MOCAP", "folder of motion capture archives, as in docs/mocap.md")
    save_dir: str = option("save/reproduce", "folder of logs and times; stages have their own")
    jobs: int = option(4, "runs of a sweep at a time; 0 = one per GPU", minimum=0)
    dry_run: bool = option(False, "print the commands and about how long they take")


@dataclass(frozen=True)
class Entry:
    """A stage as the YAML file has it."""

    name: str
    script: str
    minutes: float
    options: dict[str, Any] = field(default_factory=dict)
    product: str = ""
    used_by: str = ""

    @property
    def needs_archives(self) -> bool:
        return "{bvh_dir}" in str(self.options)

    def values(self, options: Options) -> dict[str, Any]:
        """Its options, with those of this command filled in."""

        def fill(value: Any) -> Any:
            if not isinstance(value, str):
                return value
            return value.replace("{bvh_dir}", options.bvh_dir).replace("{jobs}", str(options.jobs))

        return {name: fill(value) for name, value in self.options.items()}


def read_entries(path: Path) -> list[Entry]:
    """Raises UserError when the file is no list of stages."""
    try:
        return [Entry(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    except (OSError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no list of stages ({' '.join(str(error).split())})") from None


def make_stage(title: str, entry: Entry, options: Options) -> Stage:
    """Raises UserError for what its script would refuse, and for results of other options."""
    wanted = command(entry.script, entry.values(options), title)
    if isinstance(wanted.options, sweep.Options):
        return sweep_stage(title, entry, wanted.options, wanted.arguments)
    if not hasattr(wanted.options, "save_dir"):  # data
        product = Path(wanted.options.out) / entry.product
        if product.suffix == ".json":
            refuse_changes(product, wanted.options)
        return Stage(title, product, wanted.arguments, title, minutes=entry.minutes)
    folder = Path(wanted.options.save_dir)
    refuse_changes(folder / "args.json", wanted.options)
    product, arguments = folder / entry.product, go_on(wanted, folder)
    return Stage(title, product, arguments, title, minutes=entry.minutes)


def sweep_stage(title: str, entry: Entry, own: sweep.Options, arguments: list[str]) -> Stage:
    """A sweep is finished when all of its commands are; its minutes are those of the others."""
    commands = [stage for stage in sweep.Sweep(own).stages() if stage.title != "table"]
    left = sum(not stage.done for stage in commands)
    minutes = entry.minutes * (left or 1) / len(commands)
    return Stage(title, Path(own.save_dir) / entry.product, arguments, title, left > 0, minutes)


def plan(benchmark: str, options: Options) -> list[Stage]:
    """The stages of a benchmark, without those whose product nothing needs any more.

    Raises UserError when --bvh_dir is needed and is not there.
    """
    entries = read_entries(CONFIGS / f"{benchmark}.yaml")
    made = {e.name: make_stage(f"{benchmark}_{e.name}", e, options) for e in entries}
    needed = [e for e in entries if not (e.used_by and made[e.used_by].done)]
    unpacks = any(e.needs_archives and not made[e.name].done for e in needed)
    if unpacks and not options.dry_run and not Path(options.bvh_dir, "index.csv").is_file():
        raise UserError(
            f"--bvh_dir {options.bvh_dir} has no index.csv; name the folder of motion capture "
            "that docs/mocap.md describes, or use --benchmark synthetic, which needs none"
        )
    return [made[e.name] for e in needed]


def print_tables(stages: Sequence[Stage]) -> None:
    """The tables of all sweeps, with the paths of their files."""
    folders = [stage.product.parent for stage in stages if stage.arguments[0] == "train.sweep"]
    for path in [path for folder in folders for path in sorted(folder.glob("eval_*.md"))]:
        print(f"\n{path}\n\n{path.read_text(encoding='utf-8')}")


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    benchmarks = BENCHMARKS if options.benchmark == "both" else (options.benchmark,)
    stages = [stage for name in benchmarks for stage in plan(name, options)]
    runner = StageRunner(Path(options.save_dir), jobs=1)
    runner.show_plan(stages, options.dry_run, titles=True)
    if options.dry_run:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the running stage as well
    if failed := runner.run(stages, chained=True):
        raise UserError(f"{failed[0].title} failed; the same command goes on from there")
    print_tables(stages)


if __name__ == "__main__":
    main()
