"""What is averaged over what, in closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest

from eval.protocol import (
    MODEL,
    MODES,
    REAL,
    Embeddings,
    Estimate,
    Protocol,
    format_table,
    report,
    run_replications,
    summarize,
)
from utils.errors import UserError

SMALL = Protocol(replications=3, motions=64, diversity_pairs=20, multimodality_pairs=2)


def points(seed: int, count: int = 64, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


def run(protocol: Protocol, generate, ground_truth) -> tuple[list, list[str]]:
    lines: list[str] = []
    rng = np.random.RandomState(0)
    return run_replications(protocol, generate, ground_truth, rng, lines.append), lines


def test_interval_uses_the_population_deviation() -> None:
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert estimate.mean == 2
    assert estimate.half_width == pytest.approx(1.96 * math.sqrt(2 / 3) / math.sqrt(3))


def test_a_model_that_copies_the_data_is_perfect() -> None:
    data = Embeddings(points(0), points(0))
    replications, _ = run(SMALL, lambda r: data, lambda walk: data)
    for figures in replications:
        assert figures[MODEL].fid == pytest.approx(0, abs=1e-9)
        assert figures[MODEL].matching_score == 0
        assert figures[MODEL].r_precision.tolist() == [1, 1, 1]


def test_fid_is_measured_against_the_second_walk_and_the_rest_is_not() -> None:
    shift = np.array([3.0, 0, 4.0, 0])  # squared length 25
    first = Embeddings(points(0), points(1))
    second = Embeddings(points(2), points(1) + shift)
    replications, _ = run(SMALL, lambda r: first, lambda walk: second if walk % 2 else first)
    for figures in replications:
        for name in (REAL, MODEL):
            assert figures[name].fid == pytest.approx(25)
        assert figures[REAL].matching_score == figures[MODEL].matching_score


def test_every_replication_generates_once_and_walks_twice_anew() -> None:
    generated, walks = [], []

    def generate(replication: int) -> Embeddings:
        generated.append(replication)
        return Embeddings(points(0), points(1))

    def ground_truth(walk: int) -> Embeddings:
        walks.append(walk)
        return Embeddings(points(0), points(2))

    run(SMALL, generate, ground_truth)
    assert generated == [0, 1, 2]
    assert walks == [0, 1, 2, 3, 4, 5]


def test_multimodality_of_constant_repeats_is_zero() -> None:
    repeats = np.repeat(points(3, count=5)[:, None], 6, axis=1)
    data = Embeddings(points(0), points(1), repeats)
    summary = summarize(run(SMALL, lambda r: data, lambda w: replace(data, repeated=None))[0])
    assert summary["MultiModality"][MODEL].mean == 0
    assert REAL not in summary["MultiModality"]


def test_figures_of_every_replication_are_reported_and_logged() -> None:
    data = Embeddings(points(0), points(1))
    replications, lines = run(SMALL, lambda r: data, lambda walk: data)
    summary = summarize(replications)
    content = report(summary)
    assert len(content) == 8
    assert len(content["Diversity_vald"]["values"]) == 3
    assert np.shape(content["R_precision_vald"]["values"]) == (3, 3)
    log = "\n".join(lines)
    assert log.count("!!! DONE !!!") == 3
    assert "Multimodality:" not in log
    assert log.splitlines()[-1] == "========== MultiModality Summary =========="
    row = format_table(summary, {REAL: "real", MODEL: "mine"}).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    score = content["Matching Score_vald"]["mean"]
    assert cells[0] == "mine"
    assert cells[5] == f"{score:.3f} ± 0.000"
    assert cells[-1] == ""


def test_published_modes() -> None:
    for mode, replications in (("wo_mm", 20), ("mm_short", 5), ("debug", 5)):
        assert MODES[mode].replications == replications
        assert MODES[mode].pools(clips=4000) == 32
        assert MODES[mode].diversity_pairs == 300
    assert MODES["mm_short"].repeated_pools == 4
    assert MODES["wo_mm"].repeated_pools == 0


def test_pools_are_full_and_limited_by_the_split() -> None:
    assert replace(SMALL, motions=65).pools(clips=1000) == 3
    assert SMALL.pools(clips=63) == 1


def test_splits_too_small_for_the_metrics_are_refused() -> None:
    SMALL.check(clips=64, embedding_width=4)
    replace(SMALL, diversity_pairs=63).check(clips=64, embedding_width=63)
    with pytest.raises(UserError, match="--diversity_pairs"):
        replace(SMALL, diversity_pairs=64).check(clips=64, embedding_width=4)
    with pytest.raises(UserError, match="64 dimensions"):
        SMALL.check(clips=64, embedding_width=64)
    with pytest.raises(UserError, match="multimodality needs 4 pools"):
        replace(SMALL, repeated_captions=100).check(clips=127, embedding_width=4)
