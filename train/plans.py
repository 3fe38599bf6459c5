"""Plans: lists of stages in configs/reproduce/NAME.yaml, each of them an ordinary command.

    - name: base
      script: train.train_mdm               what follows python -m
      options: {config: configs/mocap/mdm.yaml, save_dir: save/mc_base}
      product: model000004000.pt            the last file that it writes, in its folder; not given
                                            for a command whose --output is a file
      minutes: 29                           on the machine of docs/results.md; none = not known
    - name: captions
      ...
      used_by: dataset                      not needed any more once that stage is finished
    - name: table
      after: [base]                         may run beside others that come after base; not given =
                                            alone, after all that stand before it

In options, the fields of `Places` stand for what the caller says: {bvh_dir}, {weights} and so on.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from eval.picture_figures import NO_LORA
from model.shipped import PICTURES, SHIPPED
from train import sweep_plan
from train.stages import (
    Stage,
    StageRunner,
    as_words,
    command,
    go_on,
    is_stale,
    refuse_changes,
)
from utils.bounded import read_yaml
from utils.errors import UserError
from utils.files import read_json
from utils.places import PROJECT_ROOT

CONFIGS = PROJECT_ROOT / "configs" / "reproduce"
SWEEP, EVAL_IMAGES = "train.sweep", "eval.eval_images"


@dataclass(frozen=True)
class Places:
    """shipped: the models of the project; weights: those that the demo starts from; pictures: those
    of the demo with pictures; results: where it writes."""

    bvh_dir: str = "MOCAP"
    jobs: int = 4
    shipped: str = field(default_factory=lambda: os.path.relpath(SHIPPED))
    weights: str = field(default_factory=lambda: os.path.relpath(SHIPPED))
    pictures: str = field(default_factory=lambda: os.path.relpath(PICTURES))
    results: str = "save/demo"

    def fill(self, value: Any) -> Any:
        """`value` with the names in braces replaced."""
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if not isinstance(value, str):
            return value
        for name, place in asdict(self).items():
            value = value.replace(f"{{{name}}}", str(place))
        return value


@dataclass(frozen=True)
class Entry:
    """A stage as the YAML file has it."""

    name: str
    script: str
    minutes: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    product: str = ""
    used_by: str = ""
    after: list[str] | None = None

    @property
    def needs_archives(self) -> bool:
        return "{bvh_dir}" in str(self.options)


def read_entries(path: Path) -> list[Entry]:
    """Raises UserError when the file is no list of stages."""
    try:
        return [Entry(**entry) for entry in read_yaml(path, str(path))]
    except TypeError as error:
        raise UserError(f"{path} is no list of stages ({' '.join(str(error).split())})") from None


def make_stage(title: str, entry: Entry, places: Places) -> Stage:
    """Raises UserError for what its script would refuse, and for results of other options."""
    values = {name: places.fill(value) for name, value in entry.options.items()}
    wanted = command(entry.script, values, title)
    own, minutes = wanted.options, entry.minutes
    if entry.script == SWEEP:
        return sweep_stage(title, entry, own, wanted.arguments)
    product = product_of(own, entry)
    if hasattr(own, "save_dir"):  # a training
        folder = Path(own.save_dir)
        refuse_changes(folder / "args.json", own)
        stale = is_cut_off(folder / "args.json", own.num_steps)
        return Stage(title, product, go_on(wanted, folder), title, stale, minutes)
    if hasattr(own, "model_path"):  # an evaluation
        loras = [path for path in getattr(own, "lora_path", []) if path != NO_LORA]
        models = [Path(path) for path in [*as_words(own.model_path), *loras]]
        stale = not all(path.exists() for path in models) or is_stale(product, own, models)
        return Stage(title, product, wanted.arguments, title, stale, minutes)
    if product.suffix == ".md":  # a page about results, made in no time
        return Stage(title, product, wanted.arguments, title, stale=True, minutes=minutes)
    if product.name == "dataset.json":
        refuse_changes(product, own)
    return Stage(title, product, wanted.arguments, title, minutes=minutes)


def is_cut_off(record: Path, num_steps: int) -> bool:
    """Does a record of options say that its training stopped before its last step?

    Those of TMR do: their products have the same names at every step.
    """
    return record.is_file() and read_json(record).get("step", num_steps) < num_steps


def product_of(options: Any, entry: Entry) -> Path:
    """The file that tells that a command is complete."""
    if hasattr(options, "output"):
        return Path(options.output)
    known = {field.name for field in fields(options)}
    folder = next(name for name in ("save_dir", "out", "output_dir") if name in known)
    return Path(getattr(options, folder)) / entry.product


def sweep_stage(title: str, entry: Entry, own: sweep_plan.Options, arguments: list[str]) -> Stage:
    """A sweep is finished when all of its commands are; its minutes are those of the others."""
    commands = [s for s in sweep_plan.Sweep(own).stages() if s.title != "table"]
    left = sum(not stage.done for stage in commands)
    minutes = entry.minutes * (left or 1) / len(commands)
    return Stage(title, Path(own.save_dir) / entry.product, arguments, title, left > 0, minutes)


def read_plan(name: str, places: Places, dry_run: bool = False) -> list[Stage]:
    """The stages of ``NAME.yaml``, without those whose product nothing needs any more.

    Raises UserError when --bvh_dir is needed and is not there.
    """
    entries = read_entries(CONFIGS / f"{name}.yaml")
    made = {e.name: make_stage(f"{name}_{e.name}", e, places) for e in entries}
    needed = [e for e in entries if not (e.used_by and made[e.used_by].done)]
    unpacks = any(e.needs_archives and not made[e.name].done for e in needed)
    if unpacks and not dry_run and not Path(places.bvh_dir, "index.csv").is_file():
        raise UserError(
            f"--bvh_dir {places.bvh_dir} has no index.csv; name the folder of motion capture "
            "that docs/mocap.md describes, or use --benchmark synthetic, which needs none"
        )
    return in_order(name, needed, made)


def in_order(plan: str, entries: Sequence[Entry], made: dict[str, Stage]) -> list[Stage]:
    """The stages, each with all those that it waits for. Raises UserError for unknown names."""
    stages: dict[str, Stage] = {}
    for entry in entries:
        names = stages if entry.after is None else entry.after
        if unknown := set(names) - made.keys():
            raise UserError(
                f"plan {plan}: {entry.name} comes after {unknown.pop()}, which it lacks"
            )
        before = [stages[name] for name in names if name in stages]
        titles = frozenset(stage.title for stage in before).union(*(s.after for s in before))
        stages[entry.name] = replace(made[entry.name], after=titles)
    return list(stages.values())


def read_plans(names: Sequence[str], places: Places, dry_run: bool = False) -> list[Stage]:
    """Several plans, each after the one before; what two of them make is made once."""
    stages: dict[Path, Stage] = {}
    for name in names:
        earlier = frozenset(stage.title for stage in stages.values())
        for stage in read_plan(name, places, dry_run):
            stages.setdefault(stage.product, replace(stage, after=stage.after | earlier))
    return list(stages.values())


def pages_of(stage: Stage) -> list[Path]:
    """What a stage wrote to be read: the tables of a sweep, or its product in Markdown."""
    if stage.arguments[0] == SWEEP:
        return sorted(stage.product.parent.glob("eval_*.md"))
    if stage.arguments[0] == EVAL_IMAGES:
        return [stage.product.with_suffix(".md")]
    return [stage.product] if stage.product.suffix == ".md" else []


def carry_out(
    stages: Sequence[Stage], folder: Path, dry_run: bool, jobs: int = 1, show: bool = False
) -> None:
    """Say what will run and about how long that takes, run it, and print the pages at the end.

    jobs: how many stages run at a time where the plan allows it. show: their output as well, while
    they run. Raises UserError where one fails.
    """
    runner = StageRunner(folder, jobs, show=show)
    runner.show_plan(stages, dry_run, titles=True)
    if dry_run:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the running stage as well
    if failed := runner.run(stages, chained=True):
        raise UserError(f"{failed[0].title} failed; the same command goes on from there")
    for path in [path for stage in stages for path in pages_of(stage)]:
        print(f"\n{path}\n\n{path.read_text(encoding='utf-8')}")
