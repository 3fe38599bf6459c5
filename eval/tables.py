"""Tables of evaluations: one run, or several beside the published rows.

    python -m eval.tables --compare save/base/eval_*.json save/sopo/eval_*.json --published
    python -m eval.tables --compare A.json B.json --style latex --output table4.tex

Cells are mean ± half width of the 95 % interval over replications; a name that --names holds
several times is one row, with the interval over its files, which differ in the seed of training.
The best of each column is bold (Diversity: nearest to real). A star marks a run that differs from
the first one at p < 0.05 in a paired t-test over the replications, which share their seed. The
column "R - real" is the distance to real data; a dagger marks figures above it, an artefact of the
evaluators and not a success. Runs of other datasets, splits, protocols, evaluators or seeds are
refused.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.stats import ttest_rel

from eval.eval_tmr import mean_and_interval
from eval.metrics import POOL
from eval.protocol import MODEL, MODES, REAL
from utils.errors import UserError, entry_point
from utils.files import read_json, write_text
from utils.options import option, parse_options

PUBLISHED = Path(__file__).with_name("published_results.yaml")
LEVEL = 0.05  # of significance


@dataclass
class Options:
    compare: list[str] = option([], "results of eval.eval_humanml (.json)", required=True)
    names: list[str] = option(
        [], "their names in the table, one name for several seeds; none = the models' folders"
    )
    published: bool = option(False, "add the published rows of the same dataset")
    groups: list[str] = option(["main"], "which of them: main, ablation, tau, strategy, later")
    style: str = option("markdown", "of the table", choices=("markdown", "latex", "csv"))
    output: str = option("", "file for the table; none = print only")

    def validate(self) -> None:
        if self.names and len(self.names) != len(self.compare):
            raise UserError(f"--names holds {len(self.names)} names for {len(self.compare)} files")


@dataclass(frozen=True)
class Setting:
    """What two evaluations must share to stand in one table."""

    dataset: str
    split: str
    pools: str  # of R-Precision: "random", or "distinct meanings"
    evaluators: str  # digest of their checkpoint
    seed: int
    replications: int
    motions: int
    diversity_pairs: int
    repeated_captions: int
    repeats: int
    multimodality_pairs: int

    def caption(self) -> str:
        pools = "random captions" if self.pools == "random" else "captions of distinct meanings"
        return (
            f"{self.dataset}, {self.split} split, {self.replications} replications, "
            f"R-Precision in pools of {POOL} {pools}, mean ± 95 % interval"
        )


@dataclass(frozen=True)
class Column:
    """title, index: where the figure is in the results; goal: max, min, real (nearest) or none."""

    label: str
    title: str
    goal: str
    index: int | None = None


COLUMNS = (
    Column("R@1", "R_precision", "max", 0),
    Column("R@2", "R_precision", "max", 1),
    Column("R@3", "R_precision", "max", 2),
    Column("FID", "FID", "min"),
    Column("MM-Dist", "Matching Score", "min"),
    Column("Diversity", "Diversity", "real"),
    Column("MModality", "MultiModality", "none"),
)
PRECISIONS = [column.label for column in COLUMNS if column.title == "R_precision"]


@dataclass(frozen=True)
class Cell:
    """half_width: None where it was not published; values: of the replications, in order."""

    mean: float
    half_width: float | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """cells by column label; figures that are not known are left out."""

    name: str
    cells: dict[str, Cell]
    is_real: bool = False


@dataclass(frozen=True)
class Style:
    """How a kind of table writes emphasis, marks and itself."""

    suffix: str
    bold: str = "{}"
    star: str = "*"
    dagger: str = "†"
    plus_minus: str = " ± "


STYLES = {
    "markdown": Style(".md", bold="**{}**", star="\\*"),
    "latex": Style(".tex", r"\textbf{{{}}}", r"$^{*}$", r"$^{\dagger}$", r"$\pm$"),
    "csv": Style(".csv"),
}


def rows_of(content: dict[str, Any], name: str = "") -> list[Row]:
    """The rows of real data and of the model in the results of one evaluation."""
    results = content["results"]
    return [
        Row("real", _cells(results, REAL), is_real=True),
        Row(name or content["name"], _cells(results, MODEL)),
    ]


def _cells(results: dict[str, Any], key: str) -> dict[str, Cell]:
    cells = {}
    for column in COLUMNS:
        found = results.get(f"{column.title}_{key}")
        if found is None:
            continue
        parts = [np.array(found[part]) for part in ("mean", "conf_interval", "values")]
        if column.index is not None:
            parts = [part[..., column.index] for part in parts]
        mean, half_width, values = parts
        cells[column.label] = Cell(float(mean), float(half_width), tuple(values.tolist()))
    return cells


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


def best_rows(rows: Sequence[Row], column: Column) -> set[int]:
    """Indices of the rows whose shown figure is best."""
    known = {i: r.cells[column.label].mean for i, r in enumerate(rows) if column.label in r.cells}
    models = {i: round(v, 3) for i, v in known.items() if not rows[i].is_real}
    real = next((v for i, v in known.items() if rows[i].is_real), None)
    if column.goal == "real":
        models = {i: round(abs(v - real), 3) for i, v in models.items()} if real else {}
    if column.goal == "none" or len(models) < 2:
        return set()
    best = max(models.values()) if column.goal == "max" else min(models.values())
    return {i for i, value in models.items() if value == best}


def differs(cell: Cell, baseline: Cell | None) -> bool:
    """Paired t-test over the replications, which both runs drew with one seed."""
    if baseline is None or len(cell.values) < 2 or len(cell.values) != len(baseline.values):
        return False
    change = np.subtract(cell.values, baseline.values)
    if np.ptp(change) < 1e-12:  # the same change everywhere leaves no noise to test against
        return bool(abs(change[0]) > 1e-12)
    return bool(ttest_rel(cell.values, baseline.values).pvalue < LEVEL)


def distances_to_real(rows: Sequence[Row], row: Row) -> dict[str, float]:
    """R-Precision minus that of the last row of real data above it: published rows are measured
    against the real data of their own table."""
    above = [r for r in rows[: list(rows).index(row)] if r.is_real]
    if row.is_real or not above:
        return {}
    real = above[-1].cells
    return {
        label: row.cells[label].mean - real[label].mean
        for label in PRECISIONS
        if label in row.cells and label in real
    }


def format_table(
    rows: Sequence[Row],
    setting: Setting,
    style: Style = STYLES["markdown"],
    notes: Sequence[str] = (),
) -> str:
    """The rows as Markdown, LaTeX (booktabs) or CSV; the first row that is not real data is the
    baseline of the stars."""
    if style is STYLES["csv"]:
        return _csv(rows)
    baseline = next((row for row in rows if not row.is_real), None)
    best = {column.label: best_rows(rows, column) for column in COLUMNS}
    grid = []
    for i, row in enumerate(rows):
        cells = [_text(row, label, i in best[label], baseline, style) for label in best]
        grid.append([row.name, *cells, _distances(rows, row, style)])
    header = ["", *best, "R@1, 2, 3 - real"]
    if style is STYLES["latex"]:
        return _latex(header, grid, [setting.caption(), *notes])
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *grid)]
    lines.insert(1, "|---" * len(header) + "|")
    return "\n".join([f"{setting.caption()}.", "", *lines, *(f"\n{note}" for note in notes)]) + "\n"


def _text(row: Row, label: str, best: bool, baseline: Row | None, style: Style) -> str:
    cell = row.cells.get(label)
    if cell is None:
        return "-"
    text = style.bold.format(f"{cell.mean:.3f}") if best else f"{cell.mean:.3f}"
    if cell.half_width is not None:
        text += f"{style.plus_minus}{cell.half_width:.3f}"
    compared = baseline is not None and row is not baseline and not row.is_real
    starred = compared and differs(cell, baseline.cells.get(label))
    return text + (style.star if starred else "")


def _distances(rows: Sequence[Row], row: Row, style: Style) -> str:
    """Signed distance of every R-Precision to real data, with a dagger above it."""
    texts = [
        f"{distance:+.3f}{style.dagger if distance > 0 else ''}"
        for distance in distances_to_real(rows, row).values()
    ]
    return ", ".join(texts) or "-"


def _csv(rows: Sequence[Row]) -> str:
    """Means, half widths of the intervals, and distances of the R-Precision to real data."""
    header = [part for c in COLUMNS for part in (c.label, f"{c.label} interval")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["name", *header, *(f"{label} - real" for label in PRECISIONS)])
    for row in rows:
        values: list[object] = [row.name]
        for column in COLUMNS:
            cell = row.cells.get(column.label)
            values += ["", ""] if cell is None else [cell.mean, cell.half_width]
        distances = distances_to_real(rows, row)
        values += [distances.get(label, "") for label in PRECISIONS]
        writer.writerow(["" if value is None else value for value in values])
    return file.getvalue()


def _latex(header: list[str], grid: list[list[str]], notes: Sequence[str]) -> str:
    def escape(text: str) -> str:
        return text.replace("_", r"\_").replace("&", r"\&").replace("%", r"\%")

    lines = [" & ".join(map(escape, cells)) + r" \\" for cells in (header, *grid)]
    comments = [f"% {line}" for note in notes for line in note.splitlines() if line]
    columns = "l" + "c" * (len(header) - 1)
    return "\n".join(
        [
            *comments,
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


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
