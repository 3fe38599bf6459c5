"""The benchmark on HumanML3D's captions and CMU motion capture, end to end on small files."""

from pathlib import Path

import pytest
import yaml

from tests.paths import ROOT
from tests.prepare.cmu_files import Row, perform, write_humanml, write_trial
from tests.train.scripts import LOOP, NETWORK, run_main
from train import plans
from utils.files import read_json

SPLITS = ("train",) * 12 + ("val",) * 16 + ("test",) * 8  # the evaluators ask for 32 clips in val


def as_options(words: str) -> dict[str, str]:
    names_and_values = [part.split() for part in words.split("--")[1:]]
    return dict(names_and_values)


TINY = as_options(NETWORK) | as_options(LOOP) | {"batch_size": 8, "val_interval": 2}
EVALUATORS = {
    **dict.fromkeys(("movement_hidden", "movement", "text_hidden", "motion_hidden"), 8),
    **{"embedding": 6, "movement_steps": 2, "num_steps": 2, "val_interval": 2},
    **{
        "movement_batch_size": 8,
        "batch_size": 8,
        "device": "cpu",
        "train_platform_type": "NoPlatform",
    },
}
SMALL = {
    "train.train_tmr": TINY,
    "train.train_mdm": TINY | {"diffusion_steps": 4},
    "train.train_evaluators": EVALUATORS,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with both downloads, where the benchmark's options are made small."""
    rows = []
    for number, split in enumerate(SPLITS):
        verb, speed = (("runs", 3.0), ("walks", 0.8))[number % 2]
        trial = f"08_{number + 1:02d}"
        write_trial(tmp_path / "dataset" / "CMU", trial, perform(2.6, 120, speed, 2.0 * number))
        captions = (f"a person {verb} left, {number}", f"somebody {verb} left, {number}")
        rows.append(Row(f"{number:06d}", trial, 0, 52, captions, split=split))
    write_humanml(tmp_path / "dataset" / "HumanML3D", rows)
    write_small_configs(tmp_path / "configs")
    monkeypatch.setattr(plans, "CONFIGS", tmp_path / "configs" / "reproduce")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_small_configs(folder: Path) -> None:
    """Those of the project with few steps of small networks, one row and one evaluation."""
    for name in ("reproduce", "sweeps"):
        (folder / name).mkdir(parents=True)
    stages = yaml.safe_load((ROOT / "configs" / "reproduce" / "cmu.yaml").read_text())
    for stage in stages:
        stage["options"] |= SMALL.get(stage["script"], {})
        if stage["script"].startswith("train.train_"):
            del stage["options"]["config"]
        stage["product"] = stage["product"].replace("000004000", "000000002")
    stages[-1]["product"] = "eval_tmr.md"
    (folder / "reproduce" / "cmu.yaml").write_text(yaml.safe_dump(stages))
    sweep = yaml.safe_load((ROOT / "configs" / "sweeps" / "methods_cmu.yaml").read_text())
    del sweep["common"]["config"]
    sweep["common"]["model_path"] = sweep["common"]["model_path"].replace("000004000", "000000002")
    small = {"batch_size": 4, "num_candidates": 2, "num_steps": 1, "val_motions": 8}
    sweep["common"] |= small | {"candidate_steps": 2, "probe_batches": 1, "device": "cpu"}
    judge = {"judge_path": "save/cmu_judge", "split": "test", "device": "cpu"}
    sweep |= {"seeds": [1], "rows": {"sft": sweep["rows"]["sft"], "sopo": sweep["rows"]["sopo"]}}
    sweep["evaluation"] = {"eval_tmr": judge}
    (folder / "sweeps" / "methods_cmu.yaml").write_text(yaml.safe_dump(sweep))


def test_the_benchmark_runs_from_the_downloads_to_its_table(place: Path, started, capsys) -> None:
    run_main("train.reproduce", ["--benchmark", "cmu", "--jobs", "1"])
    scripts = [words[0] for words in started]
    assert scripts[:2] == ["prepare.humanml_cmu"] * 2
    assert scripts.count("train.train_sopo") == 2
    assert scripts[-1] == "eval.eval_tmr"
    data = place / "dataset" / "HumanML3D-CMU"
    assert read_json(data / "dataset.json")["clips"] == {"train": 24, "val": 32, "test": 16}
    checks = {action["name"]: action for action in read_json(data / "verify.json")["actions"]}
    assert (checks["run"]["agree"], checks["run"]["total"]) == (36, 36)
    table = (place / "save" / "methods_cmu" / "eval_tmr.md").read_text()
    assert "| sopo |" in table
    assert capsys.readouterr().out.endswith(f"{table}\n")


def test_a_missing_download_is_told_with_the_command_that_brings_it(
    place: Path, started, capsys
) -> None:
    (place / "dataset" / "CMU").rename(place / "dataset" / "elsewhere")
    with pytest.raises(SystemExit) as end:
        run_main("train.reproduce", ["--benchmark", "cmu"])
    assert end.value.code == 2
    output = capsys.readouterr().out
    assert "cmu_dataset failed" in output
    assert "prepare/download_cmu.sh" in output
    assert len(started) == 1
