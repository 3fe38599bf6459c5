"""Is a difference between two runs larger than what the seed alone makes of them?

The figures of one row of a table are a dictionary: the title of a column -> its value.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t
from scipy.stats import ttest_ind

from eval import judging, results_table
from utils.errors import UserError
from utils.files import read_json

Row = dict[str, float]
CONFIDENCE = 0.95
# +1: larger is better, -1: smaller is better; figures without a direction are left out.
DIRECTION = {
    **dict.fromkeys(("reward", "R@1", "R@2", "R@3", "R@1 split", "R@1 hard"), 1),
    **dict.fromkeys(("facts", "sides"), 1),
    **dict.fromkeys(("FID", "MM-Dist", "skating"), -1),
}


@dataclass(frozen=True)
class Difference:
    """A tuned model minus its control in one figure.

    here: of one run each. mean, half_width: over the seeds, with Welch's 95 % interval. spread:
    what the seed alone makes of the difference of two single runs, in 95 % of the cases.
    """

    title: str
    here: float
    mean: float
    half_width: float
    spread: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``-`` where the seed alone may make such a difference."""
        if abs(self.here) <= self.spread:
            return "-"
        return "better" if self.here * DIRECTION[self.title] > 0 else "worse"


def differences(
    tuned: Row, control: Row, tuned_seeds: Sequence[Row], control_seeds: Sequence[Row]
) -> list[Difference]:
    """Of the figures that all rows have and that have a direction, in the order of `tuned`."""
    rows = [tuned, control, *tuned_seeds, *control_seeds]
    titles = [title for title in tuned if title in DIRECTION and all(title in r for r in rows)]
    found = []
    for title in titles:
        first, second = ([row[title] for row in s] for s in (tuned_seeds, control_seeds))
        interval = ttest_ind(first, second, equal_var=False).confidence_interval(CONFIDENCE)
        quantile = student_t.ppf((1 + CONFIDENCE) / 2, len(first) + len(second) - 2)
        found.append(
            Difference(
                title=title,
                here=tuned[title] - control[title],
                mean=float(np.mean(first) - np.mean(second)),
                half_width=float(interval.high - interval.low) / 2,
                spread=float(quantile) * math.hypot(np.std(first, ddof=1), np.std(second, ddof=1)),
            )
        )
    return found


def judged_rows(report: dict[str, Any]) -> dict[str, list[Row]]:
    """The rows of eval.eval_tmr's JSON: name -> one row per seed, without undefined figures."""
    titles = {title: field for title, (field, _) in judging.COLUMNS.items()}
    return {
        name: [
            {title: seed[field] for title, field in titles.items() if seed[field] is not None}
            for seed in seeds
        ]
        for name, seeds in report["rows"].items()
    }


def benchmark_rows(report: dict[str, Any]) -> tuple[Row, Row]:
    """Real data and the model in eval.eval_humanml's JSON: means over the replications."""
    real, model = (
        {title: cell.mean for title, cell in row.cells.items()}
        for row in results_table.rows_of(report)
    )
    return real, model


def seeds_of_sweep(folder: Path) -> dict[str, dict[str, list[Row]]]:
    """``judge`` and ``evaluators`` -> name of the row -> a row per seed, in order of the seeds.

    The folder is that of train.sweep with both evaluations: a folder ROW_seedS per run. Raises
    UserError where a result is missing.
    """
    found: dict[str, dict[str, list[Row]]] = {"judge": {}, "evaluators": {}}
    for run in sorted(folder.glob("*_seed*")):
        name = run.name.rpartition("_seed")[0]
        (judged,) = judged_rows(read_json(run / "eval_tmr.json"))[run.name]
        found["judge"].setdefault(name, []).append(judged)
        results = [path for path in run.glob("eval_humanml_*.json") if "progress" not in path.name]
        if len(results) != 1:
            raise UserError(f"{run} holds {len(results)} results of eval.eval_humanml, not one")
        found["evaluators"].setdefault(name, []).append(benchmark_rows(read_json(results[0]))[1])
    return found
