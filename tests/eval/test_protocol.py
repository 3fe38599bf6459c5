"""What is averaged over what, in closed form."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from eval.metrics import diversity, multimodality
from eval.protocol import (
    MODEL,
    MODES,
    REAL,
    Embeddings,
    Estimate,
    Figures,
    Protocol,
    distinct_pools,
    measure,
    precision,
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


def test_published_modes() -> None:
    for mode, replications in (("wo_mm", 20), ("mm_short", 5), ("debug", 5), ("full", 20)):
        assert MODES[mode].replications == replications
        assert MODES[mode].pools(clips=4000) == 32
        assert MODES[mode].diversity_pairs == 300
        assert (MODES[mode].repeats, MODES[mode].multimodality_pairs) == (30, 10)
    assert MODES["mm_short"].repeated_pools == 4
    assert MODES["full"].repeated_pools == 4
    assert MODES["full"].repeated_captions == MODES["mm_short"].repeated_captions == 100
    assert MODES["wo_mm"].repeated_pools == 0


def test_pools_are_full_and_limited_by_the_split() -> None:
    assert replace(SMALL, motions=65).pools(clips=1000) == 3
    assert replace(SMALL, motions=64).pools(clips=1000) == 2
    assert replace(SMALL, motions=1).pools(clips=1000) == 1
    assert SMALL.pools(clips=63) == 1
    assert SMALL.pools(clips=64) == 2
    repeated = [replace(SMALL, repeated_captions=n).repeated_pools for n in (0, 1, 31, 32, 33)]
    assert repeated == [0, 1, 1, 2, 2]


def test_a_small_split_has_fewer_pairs_of_diversity() -> None:
    assert replace(SMALL, diversity_pairs=63).fitted(clips=70).diversity_pairs == 63
    assert replace(SMALL, diversity_pairs=64).fitted(clips=70).diversity_pairs == 32
    assert MODES["debug"].fitted(clips=1000) == MODES["debug"]


def test_splits_too_small_for_the_metrics_are_refused() -> None:
    SMALL.check(clips=64, embedding_width=4)
    replace(SMALL, diversity_pairs=63).check(clips=64, embedding_width=63)
    with pytest.raises(UserError, match="--diversity_pairs"):
        replace(SMALL, diversity_pairs=64).check(clips=64, embedding_width=4)
    with pytest.raises(UserError, match="64 dimensions"):
        SMALL.check(clips=64, embedding_width=64)
    many = replace(SMALL, motions=128, repeated_captions=100)
    many.check(clips=128, embedding_width=4)
    with pytest.raises(UserError, match="multimodality needs 4 pools"):
        many.check(clips=127, embedding_width=4)
    with pytest.raises(UserError, match="multimodality needs 4 pools"):
        replace(SMALL, repeated_captions=100).check(clips=127, embedding_width=4)


def test_broken_motions_are_left_out_of_every_figure_and_named() -> None:
    whole = Embeddings(points(0, 96), points(1, 96))
    motions = whole.motions.copy()
    motions[64:] = np.nan
    part = Embeddings(whole.texts, motions, broken=("a",) * 30 + ("b", "c"))
    kept = Embeddings(whole.texts[:64], whole.motions[:64])
    found, lines = run(SMALL, lambda r: part, lambda walk: whole)
    expected, _ = run(SMALL, lambda r: kept, lambda walk: whole)
    for ours, theirs in zip(found, expected, strict=True):
        assert replace(ours[MODEL], broken=(), r_precision=None) == replace(
            theirs[MODEL], r_precision=None
        )
        assert ours[MODEL].r_precision.tolist() == theirs[MODEL].r_precision.tolist()
        assert len(ours[MODEL].broken) == 32
    assert "\n".join(lines).count("warning: left out, NaN or infinity: 32 motions (clips a, b, c)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_broken_number_makes_a_broken_motion(value: float) -> None:
    whole = Embeddings(points(0, 96), points(1, 96))
    motions, repeats = whole.motions.copy(), np.stack([points(i, 6) for i in range(5)])
    motions[64:, 2] = value
    repeats[2:, 3, 1] = value
    part = measure(replace(whole, motions=motions, repeated=repeats), whole.motions, SMALL, draws())
    kept = Embeddings(whole.texts[:64], whole.motions[:64], repeats[:2])
    expected = measure(kept, whole.motions, SMALL, draws())
    assert part.to_json() == expected.to_json()
    repeats[:, 0, 0] = value
    none = measure(replace(kept, repeated=repeats), whole.motions, SMALL, draws())
    assert none.multimodality is None


@pytest.mark.parametrize(("figure", "needed"), [("fid", 5), ("diversity", 21), ("r_precision", 32)])
def test_a_figure_needs_so_many_whole_motions_and_no_more(figure: str, needed: int) -> None:
    real = points(1)
    for count in (needed - 1, needed, needed + 1):
        motions = points(2)
        motions[count:] = np.nan
        found = measure(Embeddings(points(0), motions), real, SMALL, draws())
        assert (getattr(found, figure) is None) == (count < needed)


def test_too_few_motions_are_an_error_where_none_is_broken() -> None:
    few = Embeddings(points(0, 20), points(1, 20))
    with pytest.raises(UserError, match="pools of 32"):
        measure(few, points(2), SMALL, draws())


def draws(seed: int = 7) -> np.random.RandomState:
    return np.random.RandomState(seed)


def test_the_order_of_drawing_is_kept() -> None:
    """Seeds of published figures depend on it: generated, first walk, second walk; ground truth
    before the model; R-Precision before Diversity before MultiModality."""
    calls: list[str] = []
    real = Embeddings(points(0), points(1), meanings=[f"m{i % 40}" for i in range(64)])
    repeats = np.stack([points(i, 6) for i in range(5)])
    model = replace(real, motions=points(2), repeated=repeats)

    def generate(replication: int) -> Embeddings:
        calls.append(f"generate {replication}")
        return model

    def ground_truth(walk: int) -> Embeddings:
        calls.append(f"walk {walk}")
        return real

    rng = draws()
    found = run_replications(
        replace(SMALL, replications=2), generate, ground_truth, rng, lambda line: None
    )
    assert calls == ["generate 0", "walk 0", "walk 1", "generate 1", "walk 2", "walk 3"]
    again = draws()
    for figures in found:
        for name, own in ((REAL, real), (MODEL, model)):
            tops = precision(own.texts, own.motions, own.meanings, again)
            assert figures[name].r_precision.tolist() == tops.tolist()
            assert figures[name].diversity == diversity(own.motions, 20, again)
        assert figures[MODEL].multimodality == multimodality(repeats, 2, again)
    assert rng.randint(10**6) == again.randint(10**6)


def test_every_item_of_a_meaning_is_drawn() -> None:
    """Not only in its own pool, of which it is the first."""
    meanings = [f"m{i % 40}" for i in range(80)]
    pools = distinct_pools(meanings, draws())
    drawn, counts = np.unique(pools[:, 1:], return_counts=True)
    assert drawn.tolist() == list(range(80))
    assert counts.sum() == 80 * 31
    assert counts.max() < 3 * counts.min()


def test_figures_that_too_few_whole_motions_leave_open_are_not_invented() -> None:
    motions = points(1)
    motions[4:] = np.nan
    part = Embeddings(points(0), motions, broken=("a",) * 60)
    whole = Embeddings(points(0), points(1))
    replications, lines = run(SMALL, lambda r: part, lambda walk: whole)
    figures = replications[0][MODEL]
    assert (figures.r_precision, figures.fid, figures.diversity) == (None, None, None)
    assert figures.matching_score > 0
    assert "[vald] FID" not in "\n".join(lines)
    assert "FID_vald" not in report(summarize(replications))


def test_a_model_with_nothing_but_broken_motions_is_an_error() -> None:
    lost = Embeddings(points(0), np.full((64, 4), np.nan))
    with pytest.raises(UserError, match="diverged"):
        run(SMALL, lambda r: lost, lambda walk: Embeddings(points(0), points(1)))


def test_captions_with_a_broken_repeat_are_left_out_of_multimodality() -> None:
    repeats = np.stack([points(i, 6) for i in range(5)])
    broken = repeats.copy()
    broken[2:, 0] = np.nan
    real = Embeddings(points(0), points(1))
    found, _ = run(SMALL, lambda r: replace(real, repeated=broken), lambda walk: real)
    expected, _ = run(SMALL, lambda r: replace(real, repeated=repeats[:2]), lambda walk: real)
    assert found[0][MODEL].multimodality == expected[0][MODEL].multimodality


def test_figures_survive_json() -> None:
    figures = Figures(1.5, np.array([0.1, 0.2, 1 / 3]), 0.1 + 0.2, None, broken=("a", "b"))
    read = Figures.from_json(json.loads(json.dumps(figures.to_json())))
    assert read.r_precision.tolist() == figures.r_precision.tolist()
    assert replace(read, r_precision=None) == replace(figures, r_precision=None)


def test_an_interrupted_run_goes_on_with_the_same_draws() -> None:
    def generate(replication: int) -> Embeddings:
        return Embeddings(points(0), points(replication))

    real = Embeddings(points(8), points(9))
    rng, kept = np.random.RandomState(0), []
    run_replications(
        SMALL,
        generate,
        lambda walk: real,
        rng,
        lambda line: None,
        finished=lambda rows: kept.append((list(rows), rng.get_state())),
    )
    done, state = kept[0]
    rng = np.random.RandomState(5)
    rng.set_state(state)
    calls: list[int] = []
    again = run_replications(
        SMALL,
        lambda r: calls.append(r) or generate(r),
        lambda walk: real,
        rng,
        lambda line: None,
        done,
    )
    assert calls == [1, 2]
    values = [[r[MODEL].diversity for r in rows] for rows in (again, kept[-1][0])]
    assert values[0] == values[1]


def test_pools_hold_each_item_first_and_no_meaning_twice() -> None:
    meanings = [f"m{i % 40}" for i in range(100)]
    pools = distinct_pools(meanings, np.random.RandomState(0))
    assert pools.shape == (100, 32)
    assert pools[:, 0].tolist() == list(range(100))
    for pool in pools:
        assert len({meanings[i] for i in pool}) == 32
    assert len(np.unique(pools)) == 100
    with pytest.raises(UserError, match="have 31"):
        distinct_pools([f"m{i % 31}" for i in range(100)], np.random.RandomState(0))


def test_paraphrases_do_not_count_as_mistakes_in_pools_of_distinct_meanings() -> None:
    meaning = np.arange(96) % 48
    texts = 10.0 * np.eye(48)[meaning]
    motions = texts + 0.01 * points(0, 96, 48)  # nearer to its own or to its twin, by chance
    names = [f"m{k}" for k in meaning]
    rng = np.random.RandomState(0)
    assert precision(texts, motions, names, rng).tolist() == [1, 1, 1]
    twins = np.argsort(meaning, kind="stable")
    assert precision(texts[twins], motions[twins], None, rng)[0] < 1
