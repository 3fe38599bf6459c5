"""What counts as a difference: only what two runs of one method do not show."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from eval.seed_spread import differences, judged_rows, seeds_of_sweep
from utils.errors import UserError
from utils.files import write_json

SFT = [{"R@1": 0.50, "FID": 20.0}, {"R@1": 0.52, "FID": 20.4}, {"R@1": 0.51, "FID": 19.9}]
SOPO = [{"R@1": 0.53, "FID": 16.0}, {"R@1": 0.51, "FID": 16.6}, {"R@1": 0.52, "FID": 16.3}]


def test_a_difference_counts_beyond_the_spread_of_the_seeds() -> None:
    first, fid = differences(SOPO[0], SFT[0], SOPO, SFT)
    assert (first.title, fid.title) == ("R@1", "FID")
    assert first.here == pytest.approx(0.03)
    assert first.verdict == "-", "seeds of one method differ by 0.02"
    assert fid.verdict == "better", "smaller is better"
    (_, worse) = differences(SFT[0], SOPO[0], SFT, SOPO)
    assert worse.verdict == "worse"


def test_the_spread_is_that_of_the_difference_of_two_single_runs() -> None:
    """Of 2,000 pairs of runs without any effect, 95 % lie within it, when it is well known."""
    rng = np.random.default_rng(0)
    seeds = [[{"R@1": value} for value in rng.normal(0.5, 0.01, 200)] for _ in range(2)]
    (found,) = differences({"R@1": 0.5}, {"R@1": 0.5}, *seeds)
    pairs = rng.normal(0.5, 0.01, (2000, 2))
    within = np.mean(np.abs(pairs[:, 0] - pairs[:, 1]) <= found.spread)
    assert within == pytest.approx(0.95, abs=0.02)


def test_the_mean_over_the_seeds_has_welchs_interval() -> None:
    (first, _) = differences(SOPO[0], SFT[0], SOPO, SFT)
    assert first.mean == pytest.approx(0.01)
    tuned, control = ([row["R@1"] for row in rows] for rows in (SOPO, SFT))
    interval = ttest_ind(tuned, control, equal_var=False).confidence_interval(0.95)
    assert first.mean + first.half_width == pytest.approx(interval.high)
    assert first.mean - first.half_width == pytest.approx(interval.low)


def test_figures_without_a_direction_or_a_partner_are_left_out() -> None:
    tuned, control = {"Diversity": 1.0, "FID": 1.0}, {"Diversity": 2.0, "FID": 2.0, "R@1": 1.0}
    rows = [{"Diversity": 1.0, "FID": 1.0}, {"Diversity": 1.0, "FID": 1.1}]
    assert [d.title for d in differences(tuned, control, rows, rows)] == ["FID"]


def figures(r_at_1: float) -> dict[str, float | None]:
    undefined = ("r_at_1_hard", "hard_chance", "fid", "facts", "side_facts")
    known = ("reward", "r_at_2", "r_at_3", "r_at_1_split", "foot_skating", "invalid_motions")
    return {**dict.fromkeys(undefined), **dict.fromkeys(known, 0.5), "r_at_1": r_at_1}


def test_undefined_figures_are_no_zeros() -> None:
    (row,) = judged_rows({"rows": {"sft": [figures(0.25)]}})["sft"]
    assert row["R@1"] == 0.25
    assert "FID" not in row


def benchmark(distance: float) -> dict:
    def cell(value) -> dict:
        return {"mean": value, "conf_interval": value, "values": [value]}

    results = {
        f"Matching Score_{who}": cell(d) for who, d in (("ground truth", 1), ("vald", distance))
    }
    return {"name": "x", "results": results}


def test_the_seeds_of_a_sweep_are_collected_by_row(tmp_path) -> None:
    for name, value in {"sft_seed1": 0.1, "sft_seed2": 0.2, "sopo_seed1": 0.3}.items():
        write_json(tmp_path / name / "eval_tmr.json", {"rows": {name: [figures(value)]}})
        write_json(tmp_path / name / "eval_humanml_x.json", benchmark(10 * value))
    found = seeds_of_sweep(tmp_path)
    assert [row["R@1"] for row in found["judge"]["sft"]] == [0.1, 0.2]
    assert found["evaluators"] == {
        "sft": [{"MM-Dist": 1.0}, {"MM-Dist": 2.0}],
        "sopo": [{"MM-Dist": 3.0}],
    }
    (tmp_path / "sft_seed2" / "eval_humanml_x.json").unlink()
    with pytest.raises(UserError, match="sft_seed2 holds 0 results"):
        seeds_of_sweep(tmp_path)
