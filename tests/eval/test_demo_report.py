"""The page says what the numbers say, and its commands run as they are printed."""

import shlex
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest

from eval.demo_report import Options, page
from eval.judging import Figures
from utils.errors import UserError
from utils.files import write_json
from utils.options import parse_options


def figures(r_at_1: float) -> dict:
    return asdict(Figures(0.9, r_at_1, 0.8, 0.9, 0.3, 0.2, 0.03, 10.0, 0.8, 0.9, 0.2, 0))


def benchmark(distance: float) -> dict:
    values = {"R_precision": [0.5, 0.6, 0.7], "FID": 0.4, "Diversity": 15.0, "Matching Score": 1.0}
    results = {}
    for title, value in values.items():
        for who in ("ground truth", "vald"):
            shown = distance if (title, who) == ("Matching Score", "vald") else value
            zero = [0.0] * 3 if isinstance(value, list) else 0.0
            results[f"{title}_{who}"] = {"mean": shown, "conf_interval": zero, "values": [shown]}
    return {"name": "x", "results": results}


@pytest.fixture
def options(tmp_path) -> Options:
    rows = {"real": 0.9, "base": 0.5, "sft": 0.5, "sopo": 0.6}
    used = {
        **{"dataset": "synthetic_large", "split": "test", "sampler": "ddim", "sample_steps": 10},
        **{
            "model_path": ["base.safetensors", "a.pt", "b.pt"],
            "reward_path": ["reward"],
            "seed": 10,
        },
        "names": ["base", "sft", "sopo"],
    }
    report = {"options": used, "captions": 12, "rows": {k: [figures(v)] for k, v in rows.items()}}
    write_json(tmp_path / "table.json", report)
    distances = {"base": 2.0, "sft": 2.0, "sopo": 2.5}
    for name, distance in distances.items():
        write_json(tmp_path / f"{name}.json", benchmark(distance))
    seeds = {
        "judge": {"sft": [{"R@1": 0.5}, {"R@1": 0.51}], "sopo": [{"R@1": 0.6}, {"R@1": 0.61}]},
        "evaluators": {
            "sft": [{"MM-Dist": 2.0, "FID": 0.4}, {"MM-Dist": 2.01, "FID": 0.5}],
            "sopo": [{"MM-Dist": 2.5, "FID": 0.4}, {"MM-Dist": 2.51, "FID": 0.5}],
        },
    }
    write_json(tmp_path / "card.json", {"seeds": seeds})
    return Options(
        judged=str(tmp_path / "table.json"),
        benchmarks=[str(tmp_path / f"{name}.json") for name in distances],
        card=str(tmp_path / "card.json"),
        tuned_path="b.pt",
        examples="animations",
        output=str(tmp_path / "report.md"),
    )


def test_it_says_which_differences_exceed_those_of_the_seeds(options: Options) -> None:
    text = page(options)
    assert "By reward, judge and joints, sopo is better in R@1 than sft, beyond what" in text
    assert "By the evaluators, sopo is worse in MM-Dist than sft" in text
    assert "| R@1 | +0.100 | +0.100 ± 0.030 | ± 0.043 | better |" in text
    assert "| FID | +0.000 | +0.000 ± " in text
    assert "| sopo | 0.500 | 0.600 | 0.700 | 0.400 | 2.500 | 15.000 |" in text


def test_it_says_so_when_nothing_does(options: Options) -> None:
    seeds = {"sft": [{"R@1": 0.4}, {"R@1": 0.6}], "sopo": [{"R@1": 0.5}, {"R@1": 0.7}]}
    same = [{"MM-Dist": 1.0}, {"MM-Dist": 4.0}]
    content = {"judge": seeds, "evaluators": {"sft": same, "sopo": same}}
    write_json(options.card, {"seeds": content})
    text = page(options)
    assert "By reward, judge and joints, no difference between sopo and sft exceeds" in text
    assert "By the evaluators, no difference" in text


def test_its_commands_parse(options: Options) -> None:
    text = page(options).partition("## Look at it")[2].replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if " -m " in line]
    assert len(lines) == 3
    for line in lines:
        _, _, script, *words = shlex.split(line)
        parse_options(import_module(script).Options, words)


def test_files_that_do_not_belong_together_are_refused(options: Options) -> None:
    options.benchmarks.pop()
    with pytest.raises(UserError, match="names 2 files for base, sft, sopo"):
        page(options)
    write_json(options.card, {"models": {}})
    with pytest.raises(UserError, match="holds no figures of several seeds"):
        page(options)
    assert not Path(options.output).exists()
