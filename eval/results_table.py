"""One table of evaluations: rows and cells, emphasis and marks, and three ways to write it."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from eval.metrics import POOL
from eval.protocol import MODEL, REAL
from utils.tables import markdown_table

LEVEL = 0.05  # of significance


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
    lines = [f"{setting.caption()}.", "", markdown_table(header, grid)]
    return "\n".join([*lines, *(f"\n{note}" for note in notes)]) + "\n"


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
