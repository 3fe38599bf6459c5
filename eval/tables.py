"""Tables of evaluations: one run, or several beside the published rows.

    python -m eval.tables --compare save/base/eval_*.json save/sopo/eval_*.json --published
    python -m eval.tables --compare A.json B.json --style latex --output table4.tex

Cells are mean ± half width of the 95 % interval over replications; a name that --names holds
several times is one row, with the interval over its files, which differ in the seed of training.
The best of each column is bold (Diversity: nearest to real). A star marks a run that differs from
the first one at p < 0.05 in a paired t-test over the replications, which share their seed. The
column "R - real" is the distance to real data; a dagger marks figures above it, an artefact of the
evaluators and not a success. Runs of other datasets, splits, protocols, evaluators or seeds are
refused. --published adds what papers report on the test splits of HumanML3D and KIT-ML.
"""

from utils.start import entry_point

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from eval.protocol import MODES
from eval.results_table import COLUMNS, STYLES, Cell, Row, Setting, format_table, rows_of
from utils.errors import UserError
from utils.files import read_json, write_text
from utils.intervals import mean_and_interval
from utils.options import option, parse_options
from utils.tables import NamesOptions

PUBLISHED = Path(__file__).with_name("published_results.yaml")
PUBLISHED_DATASETS = {"humanml": "HumanML3D", "kit": "KIT-ML"}


@dataclass
class Options(NamesOptions):
    compare: list[str] = option([], "results of eval.eval_humanml (.json)", required=True)
    published: bool = option(False, "add published rows; results must be of HumanML3D or KIT-ML")
    groups: list[str] = option(["main"], "which of them: main, ablation, tau, strategy, later")
    style: str = option("markdown", "of the table", choices=("markdown", "latex", "csv"))
    output: str = option("", "file for the table; none = print only")

    def validate(self) -> None:
        self.check_names(len(self.compare), "files")


def read_results(path: str | Path) -> tuple[dict[str, Any], Setting]:
    """Raises UserError when the file is not one that eval.eval_humanml wrote."""
    content = read_json(path)
    try:
        setting = Setting(**content["setting"])
        rows_of(content)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path} holds no results of eval.eval_humanml ({type(error).__name__}: {error})"
        ) from None
    return content, setting


def check_same(paths: Sequence[str], settings: Sequence[Setting]) -> Setting:
    """Raises UserError that names the first difference between files."""
    first, expected = paths[0], settings[0]
    for path, setting in zip(paths, settings, strict=True):
        for field in fields(Setting):
            values = [getattr(s, field.name) for s in (expected, setting)]
            if values[0] != values[1]:
                raise UserError(
                    f"{first} and {path} cannot share a table: {field.name} is {values[0]} in the "
                    f"first and {values[1]} in the second; evaluate both alike"
                )
    return expected


def published_rows(setting: Setting, groups: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows of published tables and their sources.

    Raises UserError where they were measured in another setting, or there are none.
    """
    if setting.dataset not in PUBLISHED_DATASETS:
        raise UserError(
            f"--published: the published rows are of {' and '.join(PUBLISHED_DATASETS.values())} "
            f"(--dataset {' or '.join(PUBLISHED_DATASETS)}), these results of {setting.dataset}; "
            "leave it out"
        )
    content = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    standard = {k: v for k, v in asdict(MODES["wo_mm"]).items() if k != "repeated_captions"}
    standard |= {"split": "test", "pools": "random"}
    for name, value in standard.items():
        found = getattr(setting, name)
        if name not in ("repeats", "multimodality_pairs") and found != value:
            raise UserError(
                f"--published: the published rows have {name} {value}, these results {found}"
            )
    chosen = [
        row
        for row in content["rows"]
        if row["dataset"] == setting.dataset and row["group"] in groups
    ]
    if not chosen:
        raise UserError(
            f"--published: no rows of {setting.dataset} in the groups {', '.join(groups)}"
        )
    labels = [column.label for column in COLUMNS]
    rows = [
        Row(
            f"{row['name']} [{row['source']}]",
            {label: Cell(*row[label]) for label in labels if label in row},
            is_real=row.get("real", False),
        )
        for row in chosen
    ]
    used = dict.fromkeys(row["source"] for row in chosen)
    return rows, [f"[{key}] {content['sources'][key]}" for key in used]


def seeds_row(name: str, contents: Sequence[dict[str, Any]]) -> Row:
    """The row of one model, or of several that differ in the seed of their training."""
    rows = [rows_of(content, name)[1] for content in contents]
    if len(rows) == 1:
        return rows[0]
    cells = {}
    for label in rows[0].cells:
        means = [row.cells[label].mean for row in rows]
        cells[label] = Cell(*mean_and_interval(means))  # seeds pair with no replications
    return Row(name, cells)


def hacking_notes(contents: dict[str, Sequence[dict[str, Any]]]) -> list[str]:
    """A warning for every row whose training reward rises above the first row's while figures that
    the training never saw get worse, both by more than the intervals over seeds (any difference,
    where both have one seed). Rows without a reward are passed over."""
    (_, base), *others = ((name, _judgements(of_seeds)) for name, of_seeds in contents.items())
    notes = []
    for name, row in others:
        shared = [key for key in row if key in base]
        change = {key: row[key][0] - base[key][0] for key in shared}
        clear = [key for key in shared if abs(change[key]) > row[key][1] + base[key][1]]
        worse = [key for key in clear if key != "reward" and change[key] < 0]
        if worse and "reward" in clear and change["reward"] > 0:
            notes.append(
                f"warning: {name}: reward hacking? The training reward rises ("
                f"{base['reward'][0]:.3f} to {row['reward'][0]:.3f}), but worse: {', '.join(worse)}"
            )
    return notes


def _judgements(contents: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """The reward and what it should not buy, higher is better: mean, half interval over seeds."""
    found = [_judgement(content) for content in contents]
    shared = set.intersection(*(set(figures) for figures in found))
    return {key: mean_and_interval([f[key] for f in found]) for key in found[0] if key in shared}


def _judgement(content: dict[str, Any]) -> dict[str, float]:
    quality = content.get("quality", {}).get("generated", {})
    figures = {label: cell.mean for label, cell in rows_of(content)[1].cells.items()}
    values = {
        "reward": quality.get("reward"),
        "R@3 of the judge": (quality.get("recall") or {}).get("R03"),
        "stated facts": quality.get("facts"),
        "R@3 of the evaluators": figures.get("R@3"),
        "FID": -figures["FID"] if "FID" in figures else None,
    }
    return {key: value for key, value in values.items() if value is not None}


def compare(options: Options) -> str:
    """The table of several results files. Raises UserError when they cannot share one."""
    loaded, settings = zip(*map(read_results, options.compare), strict=True)
    setting = check_same(options.compare, settings)
    names = options.names or [content["name"] for content in loaded]
    if not options.names and len(set(names)) < len(names):
        raise UserError(
            f"the table would hold one name twice ({', '.join(names)}); pass --names, the same "
            "name only for seeds of one row"
        )
    contents: dict[str, list[dict[str, Any]]] = {}
    for name, content in zip(names, loaded, strict=True):
        contents.setdefault(name, []).append(content)
    rows = [rows_of(loaded[0])[0]]
    rows += [seeds_row(name, of_seeds) for name, of_seeds in contents.items()]
    notes = hacking_notes(contents)
    if options.published:
        published, sources = published_rows(setting, options.groups)
        rows, notes = rows + published, notes + sources
    return format_table(rows, setting, STYLES[options.style], notes)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    table = compare(options)
    if options.output:
        write_text(options.output, table)
    print(table, end="")


if __name__ == "__main__":
    main()
