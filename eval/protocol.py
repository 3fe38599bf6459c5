"""The evaluation protocol of HumanML3D and KIT tables, as functions of embeddings.

Several replications of (R-Precision, MM-Dist, FID, Diversity, MultiModality) for the ground truth
and for a model; mean and 95 % interval over them; and the log file that upstream (MDM) writes.
Source: Guo et al., CVPR 2022; Tevet et al., "Human Motion Diffusion Model", ICLR 2023.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from eval.metrics import POOL, diversity, fid, matching_score, multimodality, r_precision
from utils.errors import UserError

REAL, MODEL = "ground truth", "vald"  # the names in upstream's log


@dataclass(frozen=True)
class Protocol:
    """Sizes of one evaluation.

    motions: generated per replication, rounded up to full pools; repeated_captions: captions with
    `repeats` motions each for MultiModality, 0 = none; *_pairs: distances averaged.
    """

    replications: int
    motions: int = 1000
    diversity_pairs: int = 300
    repeated_captions: int = 0
    repeats: int = 30
    multimodality_pairs: int = 10

    @property
    def repeated_pools(self) -> int:
        """Pools of 32 captions that are repeated: upstream takes one more than it needs."""
        return self.repeated_captions // POOL + 1 if self.repeated_captions else 0

    def pools(self, clips: int) -> int:
        """Generated pools of 32 where the split has so many clips."""
        return min(-(-self.motions // POOL), clips // POOL)

    def check(self, clips: int, embedding_width: int) -> None:
        """Raises UserError when the split is too small for the metrics, before anything is run."""
        motions = self.pools(clips) * POOL
        needed = max(self.diversity_pairs, embedding_width) + 1
        if motions < needed:
            raise UserError(
                f"{clips} clips and {self.motions} motions give {motions} in full pools of {POOL}; "
                f"diversity of {self.diversity_pairs} pairs and FID in {embedding_width} dimensions"
                f" need {needed}: use a larger split, --num_motions or --diversity_pairs"
            )
        if self.repeated_pools > self.pools(clips):
            raise UserError(
                f"multimodality needs {self.repeated_pools} pools of {POOL} captions, {clips} clips"
                f" give {self.pools(clips)}: use a larger split or --eval_mode wo_mm"
            )


MODES = {
    "wo_mm": Protocol(replications=20),
    "mm_short": Protocol(replications=5, repeated_captions=100),
    "debug": Protocol(replications=5),
}


@dataclass(frozen=True)
class Embeddings:
    """Paired texts and motions ``[N, d]`` in pools of 32, and ``[captions, repeats, d]``."""

    texts: np.ndarray
    motions: np.ndarray
    repeated: np.ndarray | None = None


@dataclass(frozen=True)
class Figures:
    """One row of one replication; r_precision: top 1, 2, 3."""

    matching_score: float
    r_precision: np.ndarray
    fid: float
    diversity: float
    multimodality: float | None = None


Replication = dict[str, Figures]  # by REAL and MODEL


@dataclass(frozen=True)
class Estimate:
    """Mean over the replications, half width of the 95 % interval, and the values themselves."""

    mean: np.ndarray
    half_width: np.ndarray
    values: np.ndarray

    @staticmethod
    def of(values: list[float | np.ndarray]) -> "Estimate":
        """1.96 std / sqrt(R) with the population deviation, as upstream reports."""
        array = np.array(values, dtype=np.float64)
        half_width = 1.96 * array.std(axis=0) / np.sqrt(len(array))
        return Estimate(array.mean(axis=0), half_width, array)


# Upstream's titles of the metrics, in the order of its log; the fields of `Figures`.
METRICS = {
    "Matching Score": "matching_score",
    "R_precision": "r_precision",
    "FID": "fid",
    "Diversity": "diversity",
    "MultiModality": "multimodality",
}


def run_replications(
    protocol: Protocol,
    generate: Callable[[int], Embeddings],
    ground_truth: Callable[[int], Embeddings],
    rng: np.random.RandomState,
    log: Callable[[str], None],
) -> list[Replication]:
    """Run all replications and log each when it ends, then the summary.

    `generate` gives the model's embeddings of replication r; `ground_truth` those of its p-th walk
    over the real split, which upstream crops and pairs anew every time: the first walk of a
    replication gives all its figures, and the second is what both sets' FID is measured against.
    """
    replications = []
    for number in range(protocol.replications):
        sets = {MODEL: generate(number), REAL: ground_truth(2 * number)}
        again = ground_truth(2 * number + 1).motions
        replications.append(
            {name: measure(sets[name], again, protocol, rng) for name in (REAL, MODEL)}
        )
        log("\n".join(replication_log(number, replications[-1], datetime.now())))
    log("\n".join(summary_log(summarize(replications))))
    return replications


def measure(
    found: Embeddings, real: np.ndarray, protocol: Protocol, rng: np.random.RandomState
) -> Figures:
    """The figures of one set; `real` ``[N, d]`` are the motions of the FID's other side."""
    pairs, repeated = protocol.multimodality_pairs, found.repeated
    return Figures(
        matching_score=matching_score(found.texts, found.motions),
        r_precision=r_precision(found.texts, found.motions),
        fid=fid(real, found.motions),
        diversity=diversity(found.motions, protocol.diversity_pairs, rng),
        multimodality=None if repeated is None else multimodality(repeated, pairs, rng),
    )


def summarize(replications: list[Replication]) -> dict[str, dict[str, Estimate]]:
    """Title of the metric -> name of the set -> estimate; metrics without values are empty."""
    summary: dict[str, dict[str, Estimate]] = {}
    for title, field in METRICS.items():
        values = {n: [getattr(r[n], field) for r in replications] for n in (REAL, MODEL)}
        summary[title] = {n: Estimate.of(v) for n, v in values.items() if v[0] is not None}
    return summary


def replication_log(number: int, figures: Replication, time: datetime) -> Iterator[str]:
    """The lines that upstream's log has for one replication."""
    yield f"{'=' * 20} Replication {number} {'=' * 20}"
    yield f"Time: {time}"
    for name, row in figures.items():
        tops = " ".join(f"(top {k}): {v:.4f}" for k, v in enumerate(row.r_precision, start=1))
        yield f"---> [{name}] Matching Score: {row.matching_score:.4f}"
        yield f"---> [{name}] R_precision: {tops} "
    for title, field in (("FID", "fid"), ("Diversity", "diversity")):
        yield f"Time: {time}"
        for name, row in figures.items():
            yield f"---> [{name}] {title}: {getattr(row, field):.4f}"
    repeated = {n: r.multimodality for n, r in figures.items() if r.multimodality is not None}
    if repeated:
        yield f"Time: {time}"
    for name, value in repeated.items():
        yield f"---> [{name}] Multimodality: {value:.4f}"
    yield "!!! DONE !!!"


def summary_log(summary: dict[str, dict[str, Estimate]]) -> Iterator[str]:
    """The lines that upstream's log ends with."""
    for title, estimates in summary.items():
        yield f"========== {title} Summary =========="
        for name, estimate in estimates.items():
            if estimate.mean.ndim == 0:
                interval = f"Mean: {estimate.mean:.4f} CInterval: {estimate.half_width:.4f}"
                yield f"---> [{name}] {interval}"
                continue
            pairs = zip(estimate.mean, estimate.half_width, strict=True)
            tops = [f"(top {k}) Mean: {m:.4f} CInt: {h:.4f};" for k, (m, h) in enumerate(pairs, 1)]
            yield f"---> [{name}]{''.join(tops)}"


def report(summary: dict[str, dict[str, Estimate]]) -> dict[str, dict[str, object]]:
    """For JSON, under upstream's keys such as ``FID_vald``: mean, conf_interval, values."""
    return {
        f"{title}_{name}": {
            "mean": estimate.mean.tolist(),
            "conf_interval": estimate.half_width.tolist(),
            "values": estimate.values.tolist(),
        }
        for title, estimates in summary.items()
        for name, estimate in estimates.items()
    }


def format_table(summary: dict[str, dict[str, Estimate]], names: dict[str, str]) -> str:
    """A Markdown table with a row per set, called names[set]."""
    header = ["", "R@1", "R@2", "R@3", "FID", "MM-Dist", "Diversity", "MModality"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for key, name in names.items():
        cells = [name]
        for title in ("R_precision", "FID", "Matching Score", "Diversity", "MultiModality"):
            estimate = summary[title].get(key)
            cells += _cells(estimate) if estimate else [""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(estimate: Estimate) -> list[str]:
    pairs = zip(np.atleast_1d(estimate.mean), np.atleast_1d(estimate.half_width), strict=True)
    return [f"{mean:.3f} ± {half_width:.3f}" for mean, half_width in pairs]
