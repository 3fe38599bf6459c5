"""A benchmark end to end on tiny networks, its plan, and the benchmarks of the project."""

import os
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from eval import eval_tmr
from tests.paths import ROOT
from tests.train.scripts import LOOP, NETWORK, Workspace, contents, run_main, sweep_file
from tmr.model import PARTS
from train import plans, sweep_plan, train_tmr
from train.denoising import DenoisingTask
from train.plans import Entry, Places, make_stage, read_plan, read_plans
from train.stages import Stage, StageRunner, command
from utils.errors import UserError
from utils.files import write_json
from utils.options import parse_options


def as_options(words: str) -> dict[str, str]:
    """``--a 1 --b 2`` as a YAML file has it."""
    names_and_values = [part.split() for part in words.split("--")[1:]]
    return dict(names_and_values)


def write_benchmark(folder: Path, stages: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "synthetic.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))


@pytest.fixture
def tiny(workspace: Workspace, tmp_path, monkeypatch) -> Path:
    """A folder for results, and a benchmark of a dataset, a base and a sweep of one run."""
    monkeypatch.setattr(plans, "CONFIGS", tmp_path / "configs")
    rows, judge = {"sft": {"method": "sft"}}, {"judge_path": str(workspace.reward)}
    evaluation = {"eval_tmr": judge | {"split": "train"}}
    base = tmp_path / "base"
    common = {"model_path": str(base / "model000000002.pt")}
    config = sweep_file(workspace, tmp_path, rows, evaluation=evaluation, common=common)
    network = as_options(NETWORK) | as_options(LOOP) | {"batch_size": 8, "diffusion_steps": 4}
    data = {"dataset": "tiny", "data_dir": str(workspace.data)}
    training = {**network, **data, "mask_frames": True, "save_interval": 1, "save_dir": str(base)}
    made = {"out": str(tmp_path / "data"), "num_clips": 60}
    stages = [
        {"name": "dataset", "script": "prepare.synthetic", "options": made, "minutes": 2},
        {"name": "base", "script": "train.train_mdm", "options": training, "minutes": 30},
        {"name": "sweep", "script": "train.sweep", "minutes": 40},
    ]
    stages[2]["options"] = {"config": str(config), "jobs": "{jobs}"}
    for stage, product in zip(
        stages, ("dataset.json", "model000000002.pt", "eval_tmr.md"), strict=True
    ):
        stage["product"] = product
    write_benchmark(tmp_path / "configs", stages)
    return tmp_path


def run(folder: Path, *more: str) -> None:
    run_main("train.reproduce", ["--save_dir", str(folder / "logs"), "--jobs", "1", *more])


def test_a_benchmark_goes_on_after_a_failure_and_ends_with_its_tables(
    tiny: Path, started, capsys, monkeypatch
) -> None:
    step = DenoisingTask.step

    def broken(self, batch, number, rng):
        if number == 1:
            raise UserError("out of luck")
        return step(self, batch, number, rng)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(DenoisingTask, "step", broken)
        run(tiny)
    assert end.value.code == 2
    assert [words[0] for words in started] == ["prepare.synthetic", "train.train_mdm"]
    output = capsys.readouterr()
    assert output.err == "error: synthetic_base failed; the same command goes on from there\n"
    assert output.out.splitlines()[:4] == [
        "synthetic_dataset: about 2 min",
        "synthetic_base: about 30 min",
        "synthetic_sweep: about 40 min",
        "3 of 3 commands remain, about 72 min",
    ]
    assert "synthetic_base failed" in output.out
    assert "error: out of luck" in output.out

    started.clear()
    run(tiny)
    scripts = ["train.train_mdm", "train.sweep", "train.train_sopo", *["eval.eval_tmr"] * 2]
    assert [words[0] for words in started] == scripts
    assert started[0][-1] == "--resume"
    assert started[1][-2:] == ["--jobs", "1"]
    output = capsys.readouterr().out
    assert "synthetic_dataset: finished" in output
    assert "2 of 3 commands remain, about 70 min" in output
    table = (tiny / "out" / "eval_tmr.md").read_text()
    assert output.endswith(f"{tiny}/out/eval_tmr.md\n\n{table}\n")

    started.clear()
    run(tiny)
    assert started == []
    output = capsys.readouterr().out
    assert "0 of 3 commands remain\n" in output
    assert table in output


def test_a_dry_run_prints_the_commands_and_writes_nothing(tiny: Path, started, capsys) -> None:
    before = contents(tiny)
    run(tiny, "--dry_run", "--jobs", "3")
    assert contents(tiny) == before
    assert started == []
    lines = capsys.readouterr().out.splitlines()
    commands = [line.split() for line in lines if line.startswith("    python -m")]
    assert [words[2] for words in commands] == [
        *("prepare.synthetic", "train.train_mdm"),
        "train.sweep",
    ]
    assert commands[2][-2:] == ["--jobs", "3"]
    assert lines[-1] == "3 of 3 commands remain, about 72 min"


def test_a_half_finished_sweep_counts_for_what_is_left_of_it(tiny: Path) -> None:
    finished = tiny / "out" / "sft_seed1" / "model000000002.pt"  # then two evaluations
    finished.parent.mkdir(parents=True)
    finished.touch()
    (tiny / "out" / "eval_tmr.md").touch()
    stage = read_plan("synthetic", Places())[2]
    assert not stage.done, "its table is older than what it lacks"
    assert stage.minutes == pytest.approx(40 * 2 / 3)


def test_results_of_other_options_are_refused(tiny: Path) -> None:
    data = {"options": {"num_clips": 60, "seed": 11}}
    write_json(tiny / "data" / "dataset.json", data)
    with pytest.raises(UserError, match=r"data was made with other options \(--seed 11 -> 10\)"):
        read_plan("synthetic", Places())
    (tiny / "data" / "dataset.json").unlink()
    write_json(tiny / "base" / "args.json", {"lr": 0.5})
    with pytest.raises(UserError, match=r"base was made with other options \(.*--lr 0.5 -> 0.001"):
        read_plan("synthetic", Places())


def entry(name: str, script: str, **content) -> Entry:
    return Entry(name, f"prepare.{script}", 1, **content)


@pytest.fixture
def archives(tmp_path, monkeypatch) -> Path:
    """A benchmark whose dataset is made of unpacked archives."""
    unpacked, out = str(tmp_path / "bvh"), str(tmp_path / "data")
    unpack = entry(
        "bvh",
        "unpack",
        options={"archives": "{bvh_dir}/raw", "out": unpacked},
        product="unpacked.txt",
        used_by="dataset",
    )
    build = entry(
        "dataset",
        "from_bvh",
        options={"bvh_dir": unpacked, "captions": "captions.csv", "out": out},
        product="dataset.json",
    )
    monkeypatch.setattr(plans, "CONFIGS", tmp_path / "configs")
    write_benchmark(tmp_path / "configs", [asdict(unpack), asdict(build)])
    return tmp_path


def test_missing_archives_are_told_in_one_line_before_anything_starts(
    archives: Path, started, capsys
) -> None:
    with pytest.raises(SystemExit) as end:
        run(archives, "--bvh_dir", str(archives / "nowhere"))
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --bvh_dir {archives}/nowhere has no index.csv; name the")
    assert error.count("\n") == 1
    assert started == []
    run(archives, "--bvh_dir", str(archives / "nowhere"), "--dry_run")
    assert f"--archives {archives}/nowhere/raw" in capsys.readouterr().out


def test_archives_are_not_needed_once_the_dataset_is_there(archives: Path) -> None:
    places = Places(bvh_dir=str(archives / "nowhere"))
    bvh = str(archives / "bvh")
    write_json(
        archives / "data" / "dataset.json",
        {"options": {"bvh_dir": bvh, "captions": "captions.csv"}},
    )
    assert [stage.title for stage in read_plan("synthetic", places)] == ["synthetic_dataset"]


def test_mistakes_in_a_benchmark_name_the_stage(tmp_path, monkeypatch) -> None:
    with pytest.raises(UserError, match="x: --num_clips 3 is too small"):
        make_stage("x", entry("x", "synthetic", options={"num_clips": 3}), Places())
    monkeypatch.setattr(plans, "CONFIGS", tmp_path)
    write_benchmark(tmp_path, [{"name": "x"}])
    with pytest.raises(UserError, match=r"synthetic\.yaml is no list of stages \(.*script"):
        read_plan("synthetic", Places())
    made = {"out": str(tmp_path / "data"), "num_clips": 60}
    stage = {"name": "x", "script": "prepare.synthetic", "options": made, "after": ["nobody"]}
    write_benchmark(tmp_path, [stage | {"product": "dataset.json"}])
    with pytest.raises(UserError, match="synthetic: x comes after nobody, which it lacks"):
        read_plan("synthetic", Places())


@pytest.fixture
def fresh(tmp_path, monkeypatch) -> None:
    """A working folder with the configurations, without the results of this checkout."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)


def data_of(options) -> Path:
    """The folder of the motions or of the pictures that a command reads."""
    named = getattr(options, "dataset", "")
    return Path("dataset", named) if named else Path(options.data_dir)


def made_by(stages: list[Stage]) -> dict[Path, str]:
    """Product -> script. Every stage reads only what stands in the project or was made before."""
    made: dict[Path, str] = {}
    for stage in stages:
        script, *arguments = stage.arguments
        options = parse_options(import_module(script).Options, arguments)
        if script == "train.sweep":
            check_sweep(options, made)
        elif script.startswith("train.train_"):
            assert data_of(options) / "dataset.json" in made
        if script == "train.train_mdm":
            assert stage.product.name == f"model{options.num_steps:09d}.pt"
        made[stage.product] = script
    assert len(made) == len(stages)
    return made


BASES = ("train.train_mdm", "train.train_mld", "train.train_momask")


def check_sweep(options, made: dict[Path, str]) -> None:
    common, judges = sweep_plan.Sweep(options).run_options[0], options.evaluation
    assert Path("dataset", common.dataset, "dataset.json") in made
    assert made[Path(common.model_path)] in BASES
    read = {*common.reward_path, *(own.get("judge_path") for own in judges.values())}
    for folder in map(Path, read - {None}):
        assert made[folder / "last_weights" / f"{PARTS[-1]}.pt"] == "train.train_tmr"
    if "eval_humanml" in judges:
        evaluators = Path(judges["eval_humanml"]["evaluator_dir"])
        assert made[evaluators / "real_figures.json"] == "train.train_evaluators"


@pytest.mark.parametrize("name", ["synthetic", "mld", "momask", "mocap", "cmu"])
def test_the_stages_of_the_project_read_what_earlier_ones_make(name: str, fresh) -> None:
    stages = read_plan(name, Places(), dry_run=True)
    assert all(stage.minutes > 0 for stage in stages) == (name != "cmu")  # which nobody has timed
    made_by(stages)


def files_read(stage: Stage) -> set[Path]:
    """The files and folders among the words of a command that it does not write."""
    written = ("save_dir", "out", "output", "output_dir")
    options = parse_options(import_module(stage.arguments[0]).Options, stage.arguments[1:])
    values = {k: v for k, v in vars(options).items() if k not in written}
    words = [w for v in values.values() for w in (v if isinstance(v, list) else [v])]
    return {Path(w) for w in words if isinstance(w, str) and "/" in w}


def needs(stage: Stage) -> set[Path]:
    """What a command reads, the dataset that it names included."""
    options = parse_options(import_module(stage.arguments[0]).Options, stage.arguments[1:])
    return files_read(stage) | ({data_of(options)} if hasattr(options, "data_dir") else set())


def makers(path: Path, stages: list[Stage]) -> list[Stage]:
    """The stages that make a file, something in a folder, or else what lies beside it."""
    exactly = [s for s in stages if path == s.product or path in s.product.parents]
    return exactly or [s for s in stages if path.parent == s.product.parent]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("demo", "minutes"), [("demo", 6), ("demo_images", 15)])
def test_the_demo_reads_shipped_models_or_those_it_trained(
    demo: str, minutes: int, full: bool, fresh
) -> None:
    trained = {"weights": "save/demo_full/embedded", "pictures": "save/demo_images_full/shapes"}
    places = Places(**trained) if full else Places()
    stages = read_plans([f"{demo}_full", demo] if full else [demo], places)
    made = made_by(stages)
    there = {Path(places.weights), Path(places.pictures), Path("dataset")}
    for stage in stages:
        for path in files_read(stage):
            known = path in made or any(path in product.parents for product in made)
            found = path.exists() or (ROOT / path).exists()
            assert known or there & {path, *path.parents} or found, path
    for stage in stages:
        read = {other.title for path in needs(stage) for other in makers(path, stages)}
        assert read - {stage.title} <= stage.after
    assert all(stage.minutes > 0 for stage in stages)
    assert StageRunner(Path(), jobs=2).remaining([], read_plan(demo, places)) <= minutes * 60


@pytest.mark.parametrize("demo", ["demo", "demo_images"])
def test_sft_and_sopo_of_the_demo_differ_in_the_method_alone(demo: str, fresh) -> None:
    sft, sopo = (s.arguments for s in read_plan(demo, Places())[1:3])
    assert [(a, b) for a, b in zip(sft, sopo, strict=True) if a != b] == [
        ("sft", "sopo"),
        ("save/demo/sft", "save/demo/sopo"),
    ]


def test_a_training_that_was_cut_off_is_not_finished(tmp_path) -> None:
    """Its product is there from the first checkpoint on; the record tells the step."""
    options = {"save_dir": str(tmp_path), "dataset": "tiny", "num_steps": 100}
    reward = Entry("reward", "train.train_tmr", 1, options, "last_weights/motion_decoder.pt")
    product = tmp_path / reward.product
    product.parent.mkdir()
    for path in (product, tmp_path / "resume.pt"):
        path.touch()
    record = parse_options(train_tmr.Options, [f"--{k}={v}" for k, v in options.items()])
    for step, done in ((40, False), (100, True)):
        write_json(tmp_path / "args.json", asdict(record) | {"step": step})
        stage = make_stage("reward", reward, Places())
        assert stage.done == done
        assert stage.arguments[-1] == "--resume"


def test_a_judgement_is_made_again_when_its_model_is(tmp_path, monkeypatch) -> None:
    """Also where the model is missing: it will be there, and newer, when the stage starts."""
    table, model = tmp_path / "table.json", tmp_path / "model.pt"
    names = ("model_path", "reward_path", "judge_path")
    options = dict.fromkeys(names, str(model)) | {"output": str(table)}
    judged = Entry("table", "eval.eval_tmr", 1, options)
    stored = parse_options(eval_tmr.Options, command("eval.eval_tmr", options, "x").arguments[1:])
    write_json(table, {"options": asdict(stored)})
    assert not make_stage("table", judged, Places()).done
    model.touch()
    os.utime(model, (1, 1))
    assert make_stage("table", judged, Places()).done
    os.utime(model)
    os.utime(table, (1, 1))
    assert not make_stage("table", judged, Places()).done


def test_pictures_are_judged_again_when_a_lora_is_new(tmp_path) -> None:
    table, pipeline, lora = (tmp_path / name for name in ("table.json", "pipeline", "lora"))
    pipeline.mkdir()
    options = {"model_path": str(pipeline), "lora_path": ["none", str(lora)], "output": str(table)}
    judged = Entry("table", "eval.eval_images", 1, options)
    stored = command("eval.eval_images", options, "x").options
    write_json(table, {"options": asdict(stored)})
    assert not make_stage("table", judged, Places()).done, "the LoRA is still to be trained"
    lora.touch()
    for path in (lora, pipeline):
        os.utime(path, (1, 1))
    assert make_stage("table", judged, Places()).done
    os.utime(lora)
    os.utime(table, (1, 1))
    assert not make_stage("table", judged, Places()).done
