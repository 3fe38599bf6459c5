"""Tables of several runs: what may stand together, what is best, and what differs."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from eval.protocol import MODEL, MODES, REAL, Figures, report, summarize
from eval.results_table import (
    COLUMNS,
    STYLES,
    Cell,
    Row,
    Setting,
    best_rows,
    differs,
    format_table,
    rows_of,
)
from eval.tables import Options, compare, published_rows
from utils.errors import UserError
from utils.files import read_json, write_json

SETTING = Setting(
    dataset="humanml",
    split="test",
    pools="random",
    evaluators="0123",
    seed=10,
    **asdict(MODES["wo_mm"]),
)


def write_results(
    folder: Path, name: str, tops: float = 0.4, fid: float = 0.5, seed: int = 0, **others
) -> str:
    """A results file of 20 replications around these figures; returns its path."""
    noise = np.random.default_rng(seed).normal(scale=0.01, size=20)

    def figures(top: float, fid: float) -> Figures:
        return Figures(3.0, np.array([top, top + 0.1, top + 0.2]), fid, 9.5)

    rows = [{REAL: figures(0.5, 0.002), MODEL: figures(tops + e, fid - e)} for e in noise]
    content = {
        "name": name,
        "setting": asdict(others.pop("setting", SETTING)),
        "results": report(summarize(rows)),
        **others,
    }
    path = folder / f"{name}.json"
    write_json(path, content)
    return str(path)


def replace_values(path: str, count: int) -> str:
    """Keep `count` replications of a results file."""
    content = read_json(path)
    for figures in content["results"].values():
        figures["values"] = figures["values"][:count]
    write_json(path, content)
    return path


def quality(reward: float, recall: float, facts: float) -> dict:
    return {"generated": {"reward": reward, "recall": {"R03": recall}, "facts": facts}}


def test_rows_of_all_runs_below_real_data(tmp_path: Path) -> None:
    files = [write_results(tmp_path, "base"), write_results(tmp_path, "tuned", 0.45, 0.3, seed=1)]
    lines = compare(Options(compare=files)).splitlines()
    assert "humanml, test split, 20 replications" in lines[0]
    names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert names == ["", "real", "base", "tuned"]
    base, tuned = (line for line in lines if line.startswith(("| base", "| tuned")))
    assert "**0.4" not in base
    assert tuned.count("**0.") == 4  # the best R@1, R@2, R@3 and FID
    assert tuned.count("\\*") == 4  # and all of them differ from base


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "kit"}, "dataset is humanml in the first and kit"),
        ({"split": "val"}, "split is test in the first and val"),
        ({"replications": 5}, "replications is 20 in the first and 5"),
        ({"repeated_captions": 100}, "repeated_captions is 0"),
        ({"evaluators": "4567"}, "evaluators is 0123"),
        ({"pools": "distinct meanings"}, "pools is random"),
        ({"seed": 11}, "seed is 10"),
    ],
)
def test_runs_of_another_setting_are_refused_in_one_line(
    tmp_path: Path, change: dict, message: str
) -> None:
    files = [
        write_results(tmp_path, "base"),
        write_results(tmp_path, "other", setting=replace(SETTING, **change)),
    ]
    with pytest.raises(UserError, match=message) as caught:
        compare(Options(compare=files))
    assert "\n" not in str(caught.value)


def test_other_files_and_ambiguous_names_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "args.json", {"lr": 1e-4})
    with pytest.raises(UserError, match="holds no results"):
        compare(Options(compare=[str(tmp_path / "args.json")]))
    path = write_results(tmp_path, "base")
    with pytest.raises(UserError, match="--names"):
        compare(Options(compare=[path, path]))
    assert compare(Options(compare=[path, path], names=["one", "two"])).count("| one |") == 1
    with pytest.raises(UserError, match="1 names for 2 files"):
        Options(compare=[path, path], names=["one"]).validate()


def test_the_test_is_paired_over_the_replications() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(scale=1.0, size=20)  # shared by both runs: same seed, same prompts
    base = Cell(0.0, values=tuple(luck))
    assert differs(Cell(0.1, values=tuple(luck + rng.normal(0.1, 0.02, 20))), base)
    assert not differs(Cell(0.1, values=tuple(np.roll(luck, 1) + 0.1)), base)
    assert not differs(base, base)
    assert not differs(Cell(1.0, values=(1.0,)), Cell(0.0, values=(0.0,)))


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(400, 2, 20))
    alarms = [differs(Cell(0, values=tuple(a)), Cell(0, values=tuple(b))) for a, b in draws]
    assert 0.02 < np.mean(alarms) < 0.09


def test_best_is_highest_lowest_or_nearest_to_real() -> None:
    def row(name: str, value: float) -> Row:
        return Row(name, {column.label: Cell(value) for column in COLUMNS}, name == "real")

    rows = [row("real", 5.0), row("a", 3.0), row("b", 9.0), row("c", 6.0)]
    best = {column.label: best_rows(rows, column) for column in COLUMNS}
    assert (best["R@1"], best["FID"], best["Diversity"]) == ({2}, {1}, {3})
    assert best["MModality"] == set()
    assert best_rows(rows[:2], COLUMNS[0]) == set()  # one model alone is not best


def test_distance_to_real_is_signed_and_flagged_above() -> None:
    real = Row("real", {"R@1": Cell(0.5), "R@2": Cell(0.7)}, is_real=True)
    model = Row("m", {"R@1": Cell(0.45), "R@2": Cell(0.75)})
    line = format_table([real, model], SETTING).splitlines()[-1]
    assert line.endswith("| -0.050, +0.050† |")
    assert r"+0.050$^{\dagger}$" in format_table([real, model], SETTING, STYLES["latex"])


def test_latex_escapes_names_and_csv_keeps_all_digits() -> None:
    rows = [Row("my_model & co", {"FID": Cell(1 / 3, 0.125)})]
    latex = format_table(rows, SETTING, STYLES["latex"])
    assert r"my\_model \& co & - & - & - & 0.333$\pm$0.125 &" in latex
    line = format_table(rows, SETTING, STYLES["csv"]).splitlines()[1]
    assert float(line.split(",")[7]) == 1 / 3


def test_published_rows_name_their_sources_and_fit_the_setting(tmp_path: Path) -> None:
    path = write_results(tmp_path, "mine")
    table = compare(Options(compare=[path], published=True))
    assert "| MDM (fast) + SoPo [SoPo] | 0.479 ± 0.006 |" in table
    assert "[SoPo] Tan et al." in table
    line = next(line for line in table.splitlines() if line.startswith("| MLD [SoPo]"))
    assert line.endswith("| -0.058, -0.024, -0.042 |")  # against the published real data
    assert "DSoPo" not in table
    assert "DSoPo" in compare(Options(compare=[path], published=True, groups=["ablation"]))
    for change, message in (
        ({"split": "val"}, "have split test, these results val"),
        ({"replications": 5}, "have replications 20"),
        ({"pools": "distinct meanings"}, "have pools random"),
        ({"dataset": "mocap"}, "are of HumanML3D and KIT-ML .*, these results of mocap"),
    ):
        with pytest.raises(UserError, match=message):
            published_rows(replace(SETTING, **change), ["main"])
    assert published_rows(replace(SETTING, repeated_captions=100), ["main"])
    kit, _ = published_rows(replace(SETTING, dataset="kit"), ["main"])
    assert [row.name for row in kit][:2] == ["MLD [SoPo]", "MLD + SoPo [SoPo]"]


def test_a_reward_that_rises_alone_is_flagged(tmp_path: Path) -> None:
    base = write_results(tmp_path, "base", quality=quality(0.60, 30.0, 0.8))
    hacked = write_results(tmp_path, "hacked", 0.39, quality=quality(0.70, 25.0, 0.8))
    honest = write_results(tmp_path, "honest", 0.41, 0.4, quality=quality(0.65, 35.0, 0.9))
    table = compare(Options(compare=[base, hacked, honest]))
    assert "warning: hacked: reward hacking? The training reward rises (0.600 to 0.700)" in table
    assert "but worse: R@3 of the judge, R@3 of the evaluators" in table
    assert "warning: honest" not in table


def test_what_the_seeds_do_not_show_is_not_flagged(tmp_path: Path) -> None:
    base = write_results(tmp_path, "base", quality=quality(0.60, 30.0, 0.8))

    def tuned(rewards: tuple[float, ...], recalls: tuple[float, ...]) -> str:
        pairs = zip(rewards, recalls, strict=True)
        seeds = [
            write_results(tmp_path, f"seed{i}", quality=quality(reward, recall, 0.8))
            for i, (reward, recall) in enumerate(pairs)
        ]
        names = ["base", *["sopo"] * len(seeds)]
        return compare(Options(compare=[base, *seeds], names=names))

    clear = "warning: sopo: reward hacking? The training reward rises (0.600 to 0.650)"
    assert clear in tuned((0.64, 0.65, 0.66), (24.0, 25.0, 26.0))
    assert "reward hacking" not in tuned((0.64, 0.65, 0.66), (20.0, 25.0, 35.0))
    assert "reward hacking" not in tuned((0.55, 0.65, 0.75), (24.0, 25.0, 26.0))


def test_seeds_of_one_name_are_one_row_with_the_interval_over_them(tmp_path: Path) -> None:
    base = write_results(tmp_path, "base", 0.5, quality=quality(0.6, 30.0, 0.8))
    r_precisions, rewards = (0.40, 0.42, 0.47), (0.55, 0.65, 0.75)
    seeds = [
        write_results(tmp_path, f"s{i}", r, quality=quality(reward, 30.0, 0.8))
        for i, (r, reward) in enumerate(zip(r_precisions, rewards, strict=True))
    ]
    table = compare(Options(compare=[base, *seeds], names=["base", "sopo", "sopo", "sopo"]))
    lines = [line for line in table.splitlines() if line.startswith("| sopo")]
    means = [rows_of(read_json(path))[1].cells["R@1"].mean for path in seeds]
    half = 4.302653 * np.std(r_precisions, ddof=1) / np.sqrt(3)
    assert len(lines) == 1
    assert lines[0].split(" | ")[1] == f"{np.mean(means):.3f} ± {half:.3f}"
    assert "reward hacking" not in table, "within the interval over the seeds"
    few = [replace_values(path, 3) for path in (base, *seeds)]  # as many replications as seeds
    assert "\\*" not in compare(Options(compare=few, names=["base", "sopo", "sopo", "sopo"]))
    with pytest.raises(UserError, match="the same name only for seeds"):
        compare(Options(compare=[base, base]))
