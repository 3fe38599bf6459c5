"""The commands of a sweep: rows of options times seeds, their fixed pairs and their judgement.

train/sweep.py says what the YAML file holds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from data_loaders.humanml import resolve_dataset
from eval.humanml_benchmark import log_path
from eval.judging import Figures, format_table, sampling_words
from model.checkpoint_files import read_model_args
from train.preference.fixed_pairs import PairIndex, shard_path
from train.preference.methods import METHODS, needs_fixed_pairs
from train.stages import (
    Command,
    RunnerOptions,
    Stage,
    StageRunner,
    as_words,
    command,
    go_on,
    is_stale,
    options_of,
    refuse_changes,
    section,
)
from utils.errors import UserError
from utils.files import read_json, write_text
from utils.options import option

Values = dict[str, Any]

# The commands that a sweep puts together
TRAINING, PAIRS = "train.train_sopo", "prepare.preference_pairs"
TMR, HUMANML, TABLES = "eval.eval_tmr", "eval.eval_humanml", "eval.tables"

# What pairs and evaluations take from the common options of the runs.
FILES = (
    *("dataset", "data_dir", "text_encoder_path", "reward_text_encoder_path"),
    *("reward_path", "evaluator_dir", "glove_dir", "device"),
)
CANDIDATES = (
    *("model_path", "reward", "reward_weights", "num_candidates"),
    *("candidate_sampler", "candidate_steps", "guidance_param"),
)
TMR_TABLE = re.compile(r"eval_tmr(_\w+)?")
PICTURES = "train.train_sopo_image"  # train/picture_sweep.py
OWN = ("resume", "overwrite", "save_dir", "out", "output", "output_dir")  # the sweep sets them


@dataclass
class Options(RunnerOptions):
    script: str = option(TRAINING, "what the rows are options of", choices=(TRAINING, PICTURES))
    seeds: list[int] = option([1, 2, 3], "seeds of every row", minimum=0)
    common: Values | None = option(None, "in the YAML file: options of every row", required=True)
    rows: Values | None = option(None, "in the YAML file: options by row", required=True)
    pairs: Values | None = option(None, "in the YAML file: options of the fixed pairs")
    evaluation: Values | None = option(None, "in the YAML file: options by script")

    def validate(self) -> None:
        if not self.rows or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError("a sweep needs at least one row and one seed, and no seed twice")
        for row in self.rows or {}:
            if not re.fullmatch(r"\w[\w.-]*", str(row)) or row in ("base", "real"):
                raise UserError(f"rows: {row!r} names a folder; use letters and digits, not base")
        judges = {name for name in self.evaluation or {} if not TMR_TABLE.fullmatch(str(name))}
        if self.script == PICTURES:
            if set(self.evaluation or {}) - {"eval_images"}:
                raise UserError("evaluation: pictures are judged by eval_images")
        elif judges not in (set(), {"eval_humanml"}, {"eval_humanml", "tables"}):
            raise UserError(
                "evaluation: use eval_tmr, eval_tmr_NAME, eval_humanml (which tables needs) or both"
            )


class Sweep:
    """All its commands. Raises UserError for options that a script or a result refuses."""

    training, product = TRAINING, "model{:09d}.pt"

    def __init__(self, options: Options) -> None:
        self.folder, self.pair_options = Path(options.save_dir), options.pairs
        self.common = section(self.training, options.common, "common", *OWN, "seed")
        self.rows = {
            row: section(self.training, content, f"rows: {row}", *OWN, "seed", "model_path")
            for row, content in (options.rows or {}).items()
        }
        self.evaluation = options.evaluation or {}
        self.run_options: list[Any] = []
        self.pairs: dict[Path, Stage] = {}
        # Seed by seed, so that the first complete table comes early
        self.runs = [self._run(row, seed) for seed in options.seeds for row in self.rows]
        self.base = Path(self.run_options[0].model_path)

    def stages(self) -> list[Stage]:
        """All of them, as if every run were finished."""
        return [*self.pairs.values(), *self.runs, *self.tmr(self.runs), *self.humanml(self.runs)]

    def _run(self, row: str, seed: int) -> Stage:
        folder = self.folder / f"{row}_seed{seed}"
        values = {**self.common, **self.rows[row], "seed": seed, "save_dir": folder}
        method = values.get("method", options_of(self.training).method)
        if method in METHODS and needs_fixed_pairs(method) and not values.get("pairs_path"):
            values["pairs_path"] = self._pairs(method)
        wanted = command(self.training, values, f"rows: {row}")
        self.run_options.append(wanted.options)
        refuse_changes(folder / "args.json", wanted.options)
        product = folder / self.product.format(wanted.options.num_steps)
        return Stage(folder.name, product, go_on(wanted, folder), kind=row)

    def _pairs(self, method: str) -> Path:
        """The folder of fixed pairs that a method reads; one per reward that ranks them."""
        values = {"reward": "tmr"} | self._inherit(PAIRS, (*FILES, *CANDIDATES))
        values |= section(PAIRS, self.pair_options, "pairs", *OWN)
        if ranked_by := {pairing.ranked_by for pairing in METHODS[method]} - {""}:
            values |= {"reward": sorted(ranked_by), "reward_weights": None}
        folder = self.folder / "_".join(["pairs", *as_words(values["reward"])])
        if folder in self.pairs:
            return folder
        wanted = command(PAIRS, values | {"out": folder}, "pairs")
        product = folder / "index.json"
        if product.is_file():
            files = [shard_path(folder, n) for n in range(len(PairIndex.read(folder).shards))]
            refuse_changes(product, wanted.options)
            product = next((path for path in files if not path.is_file()), files[-1])
        self.pairs[folder] = Stage(folder.name, product, [*wanted.arguments, "--resume"])
        return folder

    def _inherit(self, script: str, names: Sequence[str]) -> Values:
        known = {field.name for field in fields(options_of(script))}
        return {name: self.common[name] for name in names if name in self.common and name in known}

    @property
    def tmr_tables(self) -> list[str]:
        return [name for name in self.evaluation if TMR_TABLE.fullmatch(name)]

    def _evaluation(self, script: str, own: Values, name: str = "") -> Command:
        """A command of `script` with the options that `evaluation` has under this name."""
        name = name or script.split(".")[-1]
        where = f"evaluation: {name}"
        given = section(script, self.evaluation.get(name), where, *OWN, *own)
        return command(script, self._inherit(script, FILES) | given | own, where)

    def tmr(self, runs: Sequence[Stage]) -> list[Stage]:
        """One command per table and model, where the sweep asks for it."""
        if not runs:
            return []
        stages = []
        for title in self.tmr_tables:
            for name, model in self.models(runs).items():
                output = self.folder / name / f"{title}.json"
                own = {"model_path": [model], "names": [name], "output": output}
                wanted = self._evaluation(TMR, own, title)
                stale = is_stale(output, wanted.options, [model])
                stages.append(Stage(f"{title}_{name}", output, wanted.arguments, title, stale))
        return stages

    def models(self, runs: Sequence[Stage]) -> dict[str, Path]:
        """The checkpoints of the base and of these runs, by the names of their folders."""
        return {"base": self.base} | {run.title: run.product for run in runs}

    def humanml(self, runs: Sequence[Stage]) -> list[Stage]:
        """One command per model, where the sweep asks for it, and last that of their table."""
        if not runs or "eval_humanml" not in self.evaluation:
            return []
        stages = []
        models = self.models(runs)
        for name, model in models.items():
            own = {"model_path": model, "output_dir": self.folder / name}
            wanted = self._evaluation(HUMANML, own)
            log = log_path(wanted.options, self.base)
            arguments = wanted.arguments
            if log.with_suffix(".progress.json").is_file():
                arguments = [*arguments, "--resume"]
            elif log.is_file():
                arguments = [*arguments, "--overwrite"]
            stale = is_stale(results := log.with_suffix(".json"), wanted.options, [model])
            stages.append(Stage(f"eval_{name}", results, arguments, "eval_humanml", stale))
        output = self.folder / "eval_humanml.md"
        names = ["base", *(run.kind for run in runs)]
        own = {"compare": [s.product for s in stages], "names": names, "output": output}
        table = self._evaluation(TABLES, own).arguments
        return [*stages, Stage("table", output, table, stale=True)]

    def judge(self, finished: Sequence[Stage], runner: StageRunner) -> list[Stage]:
        """Judge these runs and print their tables; returns what failed."""
        failed = runner.run(self.tmr(finished))
        for title in self.tmr_tables if not failed else []:
            print(f"\n{self.write_tmr_table(title)}")
        if stages := self.humanml(finished):
            failed += (broken := runner.run(stages[:-1]) or runner.run(stages[-1:]))
            if not broken:
                print(f"\n{stages[-1].product.read_text(encoding='utf-8')}")
        return failed

    def check_inputs(self) -> None:
        """Raises UserError when the base, a dataset, a reward or a judge is missing."""
        read_model_args(self.base)
        folders = [own.get("judge_path") for own in self.evaluation.values() if own]
        for options in self.run_options:
            resolve_dataset(options.dataset, options.data_dir)
            folders += options.reward_path if "tmr" in options.reward else []
        for folder in filter(None, folders):
            if not Path(folder).exists():
                raise UserError(f"{folder} does not exist; name the run folder of a TMR model")

    def write_tmr_table(self, title: str) -> str:
        """The figures of all runs in Markdown; dashes in rows of which nothing is finished."""
        report = read_json(self.folder / "base" / f"{title}.json")
        found = {name: report["rows"][name] for name in ("real", "base")}
        for run in self.runs:
            path = self.folder / run.title / f"{title}.json"
            found.setdefault(run.kind, [])
            if run.done and path.is_file():
                found[run.kind] += read_json(path)["rows"][run.title]
        rows = {name: [Figures(**seed) for seed in row] for name, row in found.items()}
        heading = "{dataset}, {split} split, ".format(**report["options"])
        heading += f"{sampling_words(report['options'])}, "
        heading += f"{report['captions']} captions; mean ± 95 % interval over the seeds."
        missing = [run.title for run in self.runs if not run.done]
        note = f"\nNot finished: {', '.join(missing)}.\n" if missing else ""
        table = f"{heading}\n\n{format_table(rows)}\n{note}"
        write_text(self.folder / f"{title}.md", table)
        return table
