"""The evaluation protocol of HumanML3D and KIT tables, as functions of embeddings.

Several replications of (R-Precision, MM-Dist, FID, Diversity, MultiModality) for the ground truth
and for a model; mean and 95 % interval over them; and the log file that upstream (MDM) writes.
Source: Guo et al., CVPR 2022; Tevet et al., "Human Motion Diffusion Model", ICLR 2023.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from eval.metrics import (
    POOL,
    diversity,
    fid,
    matching_score,
    multimodality,
    r_precision,
    top_k_hits,
)
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

    def fitted(self, clips: int) -> "Protocol":
        """With fewer pairs of Diversity where a split has too few motions for them: half as many
        as motions, so that some broken ones can be left out."""
        motions = self.pools(clips) * POOL
        return (
            self if motions > self.diversity_pairs else replace(self, diversity_pairs=motions // 2)
        )

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
    "full": Protocol(replications=20, repeated_captions=100),
}


@dataclass(frozen=True)
class Embeddings:
    """Paired texts and motions ``[N, d]`` in pools of 32, and ``[captions, repeats, d]``.

    Rows of NaN stand for broken motions, whose clips are named in `broken`. meanings: what the
    texts state, where R-Precision is to draw pools of distinct meanings.
    """

    texts: np.ndarray
    motions: np.ndarray
    repeated: np.ndarray | None = None
    meanings: list[str] | None = None
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figures:
    """One row of one replication; r_precision: top 1, 2, 3.

    A figure is None where it is not asked for, or where too few motions are left for it because
    the others are `broken`.
    """

    matching_score: float
    r_precision: np.ndarray | None
    fid: float | None
    diversity: float | None
    multimodality: float | None = None
    broken: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        tops = None if self.r_precision is None else self.r_precision.tolist()
        return asdict(self) | {"r_precision": tops}

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Figures":
        tops = content["r_precision"]
        kept = {"broken": tuple(content["broken"])}
        return Figures(**content | kept | {"r_precision": None if tops is None else np.array(tops)})


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
    done: Sequence[Replication] = (),
    finished: Callable[[list[Replication]], None] = lambda replications: None,
) -> list[Replication]:
    """Run all replications and log each when it ends, then the summary.

    `generate` gives the model's embeddings of replication r; `ground_truth` those of its p-th walk
    over the real split, which upstream crops and pairs anew every time: the first walk of a
    replication gives all its figures, and the second is what both sets' FID is measured against.
    `done` are those of an interrupted run; `finished` is called after every further one.
    """
    replications = list(done)
    for number in range(len(done), protocol.replications):
        sets = {MODEL: generate(number), REAL: ground_truth(2 * number)}
        again = ground_truth(2 * number + 1).motions
        replications.append(
            {name: measure(sets[name], again, protocol, rng) for name in (REAL, MODEL)}
        )
        log("\n".join(replication_log(number, replications[-1], datetime.now())))
        finished(replications)
    log("\n".join(summary_log(summarize(replications))))
    return replications


def measure(
    found: Embeddings, real: np.ndarray, protocol: Protocol, rng: np.random.RandomState
) -> Figures:
    """The figures of one set; `real` ``[N, d]`` are the motions of the FID's other side.

    Broken motions are left out. Raises UserError when all are broken, and, with none broken, when
    a metric needs more motions than there are.
    """
    kept = np.isfinite(found.motions).all(axis=1)
    count = int(kept.sum())
    if count == 0:
        raise UserError("every generated motion holds NaN or infinity: the model has diverged")
    texts, motions = found.texts[kept], found.motions[kept]
    meanings = found.meanings and [m for m, k in zip(found.meanings, kept, strict=True) if k]

    def possible(needed: int) -> bool:
        return bool(kept.all()) or count >= needed

    pairs = protocol.diversity_pairs
    return Figures(
        matching_score=matching_score(texts, motions),
        r_precision=precision(texts, motions, meanings, rng) if possible(POOL) else None,
        fid=fid(real, motions) if possible(motions.shape[1] + 1) else None,
        diversity=diversity(motions, pairs, rng) if possible(pairs + 1) else None,
        multimodality=_multimodality(found.repeated, protocol, rng),
        broken=found.broken,
    )


def _multimodality(
    repeated: np.ndarray | None, protocol: Protocol, rng: np.random.RandomState
) -> float | None:
    """Captions with a broken repeat are left out."""
    if repeated is None:
        return None
    whole = repeated[np.isfinite(repeated).all(axis=(1, 2))]
    return multimodality(whole, protocol.multimodality_pairs, rng) if len(whole) else None


def precision(
    texts: np.ndarray,
    motions: np.ndarray,
    meanings: list[str] | None,
    rng: np.random.RandomState,
    pool: int = POOL,
) -> np.ndarray:
    """R-Precision ``[3]``: over the consecutive pools, or over pools of distinct meanings.

    With meanings, every text is asked in a pool of its own motion and of others whose texts state
    other things, pairwise distinct. Raises UserError when there are too few for one pool.
    """
    if meanings is None:
        return r_precision(texts, motions, pool=pool)
    pools = distinct_pools(meanings, rng, pool)
    hits = [top_k_hits(texts[i : i + 1], motions[pool])[0] for i, pool in enumerate(pools)]
    return np.mean(hits, axis=0)


def check_distinct(meanings: list[str], pool: int = POOL) -> None:
    """Raises UserError when there are too few distinct meanings for a pool."""
    count = len(set(meanings))
    if count < pool:
        raise UserError(
            f"R-Precision needs pools of {pool} distinct meanings, these captions have {count}: "
            "use a larger split or more motions (--num_motions)"
        )


def distinct_pools(meanings: list[str], rng: np.random.RandomState, pool: int = POOL) -> np.ndarray:
    """Rows ``[N, pool]`` of one pool per item: itself first, then items of other meanings.

    The other meanings are drawn uniformly without repetition, then one item of each.
    """
    check_distinct(meanings, pool)
    kinds, kind = np.unique(meanings, return_inverse=True)
    members = [np.flatnonzero(kind == k) for k in range(len(kinds))]
    pools = np.empty((len(kind), pool), int)
    for row, own in enumerate(kind):
        others = rng.choice(len(kinds) - 1, pool - 1, replace=False)
        others += others >= own
        pools[row] = [row, *(members[k][rng.randint(len(members[k]))] for k in others)]
    return pools


def summarize(replications: list[Replication]) -> dict[str, dict[str, Estimate]]:
    """Title of the metric -> name of the set -> estimate; metrics without values are empty."""
    summary: dict[str, dict[str, Estimate]] = {}
    for title, field in METRICS.items():
        values = {n: [getattr(r[n], field) for r in replications] for n in (REAL, MODEL)}
        known = {n: [v for v in row if v is not None] for n, row in values.items()}
        summary[title] = {n: Estimate.of(v) for n, v in known.items() if v}
    return summary


def replication_log(number: int, figures: Replication, time: datetime) -> Iterator[str]:
    """The lines that upstream's log has for one replication."""
    yield f"{'=' * 20} Replication {number} {'=' * 20}"
    yield f"Time: {time}"
    for name, row in figures.items():
        yield f"---> [{name}] Matching Score: {row.matching_score:.4f}"
        if row.r_precision is not None:
            tops = " ".join(f"(top {k}): {v:.4f}" for k, v in enumerate(row.r_precision, start=1))
            yield f"---> [{name}] R_precision: {tops} "
    for title, field in (
        ("FID", "fid"),
        ("Diversity", "diversity"),
        ("Multimodality", "multimodality"),
    ):
        values = {n: v for n, row in figures.items() if (v := getattr(row, field)) is not None}
        if values:
            yield f"Time: {time}"
        for name, value in values.items():
            yield f"---> [{name}] {title}: {value:.4f}"
    for row in figures.values():
        if row.broken:
            yield f"warning: left out, NaN or infinity: {tell_broken(row.broken)}"
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


def tell_broken(names: Sequence[str]) -> str:
    """How many motions are broken, and the clips of the first few."""
    first = ", ".join(list(dict.fromkeys(names))[:3])
    return f"{len(names)} motions (clips {first}{', ...' if len(set(names)) > 3 else ''})"
