"""Draw what runs have logged (metrics.jsonl) as small panels, seeds as a mean with a band.

    python -m eval.learning_curves --runs save/sopo_seed* save/sft_seed* --output curves.png
    python -m eval.learning_curves --runs save/a save/b --names tau25 tau50 --output curves.png \\
        --values rewards/candidate_score errors/winner_difference

Runs of one name are seeds of one setting. Every run is smoothed first; the line is the mean of its
seeds, the band reaches from the smallest to the largest of them. Figures of the val split (val/...)
are means over many motions already and are drawn as they are.
"""

from utils.start import entry_point

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.errors import UserError
from utils.extras import extra
from utils.files import atomic_write
from utils.options import option, parse_options
from utils.tables import NamesOptions

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes

Series = dict[int, float]  # value by step

# Drawn without --values: the first for runs that learn from preferences, else the second.
PREFERENCE_VALUES = (
    *("rewards/candidate_score", "gate/share_below_tau", "rewards/margins"),
    *("errors/winner_difference", "errors/loser_difference"),
)
OTHER_VALUES = ("val/score",)
FORMATS = (".png", ".svg", ".pdf")
COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 3.2, 2.4  # inches


@dataclass
class Options(NamesOptions):
    runs: list[str] = option([], "run folders", required=True)
    values: list[str] = option([], "logged figures; none = what suits the runs")
    window: int = option(5, "logged points in the running mean (odd); 1 = none", minimum=1)
    output: str = option("", f"figure to write: {', '.join(FORMATS)}", required=True)

    def validate(self) -> None:
        self.check_names(len(self.runs), "runs")
        if self.window % 2 == 0:
            raise UserError(f"--window {self.window} has no middle point; use an odd number")
        if Path(self.output).suffix not in FORMATS:
            raise UserError(f"--output {self.output} must end in {', '.join(FORMATS)}")


@dataclass(frozen=True)
class Curve:
    """Mean, smallest and largest value over seeds, at the steps ``[N]`` that all of them logged."""

    seeds: int
    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def read_run(folder: str | Path) -> dict[str, Series]:
    """All logged figures of a run. A step logged twice, as after a resume, counts as logged last.

    Raises UserError when the folder has no metrics file, or one with a damaged line; a last
    line that a kill has torn is left out.
    """
    path = Path(folder) / "metrics.jsonl"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise UserError(f"{path} does not exist; --runs takes folders of training runs") from None
    found: dict[str, Series] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record: dict[str, Any] = json.loads(line)
            step = int(record.pop("step"))
            for name, value in record.items():
                found.setdefault(name, {})[step] = float(value)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines) and not text.endswith("\n"):
                print(f"warning: {path}: the last line is torn and left out", file=sys.stderr)
                break
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path}, line {number} is no logged step ({reason})") from None
    return found


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` points ``[N]``; towards both ends over as many as fit evenly."""
    total = len(values)
    half = [min(window // 2, i, total - 1 - i) for i in range(total)]
    return np.array([values[i - h : i + h + 1].mean() for i, h in enumerate(half)])


def average_seeds(seeds: Sequence[Series], window: int) -> Curve:
    """Smooth every seed and put them together. Raises ValueError when no step is common to all."""
    steps = sorted(set.intersection(*(set(series) for series in seeds)))
    if not steps:
        raise ValueError("the runs have no logged step in common")
    smooth = [running_mean(np.array([series[s] for s in steps]), window) for series in seeds]
    rows = np.stack(smooth)
    return Curve(len(seeds), np.array(steps), rows.mean(axis=0), rows.min(axis=0), rows.max(axis=0))


def run_names(options: Options) -> list[str]:
    """Folders that a sweep wrote as ROW_seedN are seeds of ROW."""
    folders = [Path(run).resolve().name for run in options.runs]
    return options.names or [re.sub(r"_seed\d+$", "", folder) for folder in folders]


def pick_values(runs: Sequence[dict[str, Series]], wanted: Sequence[str]) -> list[str]:
    """`wanted`, or the defaults that at least one run has.

    Raises UserError, with what there is, for a value that no run has.
    """
    available = sorted(set().union(*runs))
    missing = [name for name in wanted if name not in available]
    if missing:
        raise UserError(f"no run logged {', '.join(missing)}; there are: {', '.join(available)}")
    for names in (wanted, PREFERENCE_VALUES, OTHER_VALUES):
        if found := [name for name in names if name in available]:
            return found
    raise UserError(f"choose --values from: {', '.join(available) or 'nothing was logged'}")


def collect(options: Options) -> dict[str, dict[str, Curve]]:
    """Value -> name of the runs -> curve. Runs without a value are left out of its panel."""
    runs = [read_run(folder) for folder in options.runs]
    groups: dict[str, list[dict[str, Series]]] = {}
    for name, run in zip(run_names(options), runs, strict=True):
        groups.setdefault(name, []).append(run)
    panels: dict[str, dict[str, Curve]] = {}
    for value in pick_values(runs, options.values):
        window = 1 if value.startswith("val/") else options.window
        panels[value] = {}
        for name, seeds in groups.items():
            try:
                if series := [run[value] for run in seeds if value in run]:
                    panels[value][name] = average_seeds(series, window)
            except ValueError as error:
                raise UserError(f"{name}, {value}: {error}; give them different --names") from None
    return panels


def draw(panels: dict[str, dict[str, Curve]], window: int, path: Path) -> None:
    """One small panel per value, one colour per name, one legend for all."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (PANEL_WIDTH * columns, PANEL_HEIGHT * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    handles = {}
    for axes, (value, curves) in zip(grid, panels.items(), strict=False):
        for name, curve in curves.items():
            label = f"{name} ({curve.seeds} seeds)" if curve.seeds > 1 else name
            handles[label] = draw_curve(axes, curve, f"C{names.index(name)}")
        axes.set_title(value, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    place = {"loc": "outside upper center", "ncols": 2 * columns}
    figure.legend(handles.values(), handles.keys(), **place, frameon=False, fontsize=8)
    note = "optimiser step (bands: smallest to largest seed"
    smoothed = window > 1 and any(not value.startswith("val/") for value in panels)
    note += f"; running mean over {window} logged points)" if smoothed else ")"
    figure.supxlabel(note, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)


def draw_curve(axes: "Axes", curve: Curve, color: str) -> Any:
    """The line's handle for the legend. A curve of one point is drawn as a dot."""
    marker = "o" if len(curve.steps) == 1 else None
    (line,) = axes.plot(curve.steps, curve.mean, color=color, linewidth=1.3, marker=marker)
    if (curve.high > curve.low).any():
        axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
    return line


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    extra("matplotlib", "vis", "figures")
    panels = collect(options)
    draw(panels, options.window, Path(options.output))
    drawn = set().union(*panels.values())
    for name in dict.fromkeys(run_names(options)):
        if name not in drawn:
            print(f"note: {name} logged none of {', '.join(panels)}")
    print(options.output)


if __name__ == "__main__":
    main()
