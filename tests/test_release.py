"""The command lines of the SoPo release's README, word for word, with files where it puts them."""

import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import torch

import text_motion_sim
from data_loaders.skeleton import HUMANML
from model.checkpoint_files import read_model_args
from prepare import check
from rewards.co_embedding import EvaluatorSizes
from sample.generation import read_prompts
from tests.data_loaders.datasets import write_dataset
from tests.model.tiny import tiny_generator
from tests.paths import ROOT
from tests.rewards.evaluator_files import TINY, write_evaluators
from tests.rewards.glove import write_glove
from tests.tmr.tiny import tiny_tmr
from tmr.model import find_run
from utils.files import save_tensors
from utils.options import parse_options

PLACES = {
    "bash prepare/download_smpl_files.sh": "body_models/smpl",
    "bash prepare/download_t2m_evaluators.sh": "t2m",
    "bash prepare/download_glove.sh": "glove",
    "bash prepare/download_tmr.sh": "models",
}
GENERATE = "python -m sample.generate --model_path ./save/humanml_trans_enc_512/model000200000.pt"
PROGRAMS = [
    "python -m train.train_sopo --save_dir save/sopo_experiment --dataset humanml",
    f"{GENERATE} --num_samples 10 --num_repetitions 3",
    f"{GENERATE} --input_text ./assets/example_text_prompts.txt",
    f'{GENERATE} --text_prompt "the person walked forward and is picking up his toolbox."',
    "python -m eval.eval_humanml --model_path ./save/humanml_trans_enc_512/model000475000.pt",
]
CHECKPOINTS = [
    "save/humanml_enc_512_50steps/model000750000.pt",
    "save/humanml_trans_enc_512/model000200000.pt",
    "save/humanml_trans_enc_512/model000475000.pt",
]
REWARD = "pretrained_tmr/tmr_humanml3d_guoh3dfeats"


@pytest.fixture
def release(tmp_path, monkeypatch) -> Path:
    """A folder with small files of every kind, where the release's README has them."""
    for name in CHECKPOINTS:
        path = Path(name)
        step = int(path.stem.removeprefix("model"))
        tiny_generator(HUMANML).save(tmp_path / path.parent, step, None, {})
    reward = tiny_tmr(features=HUMANML.feature_dim)
    reward.save(tmp_path / REWARD)
    statistics = tmp_path / "stats" / "humanml3d" / "guoh3dfeats"
    statistics.mkdir(parents=True)
    for name in ("mean", "std"):  # as published: none in the run folder
        (tmp_path / REWARD / "stats" / f"{name}.pt").unlink()
        save_tensors(statistics / f"{name}.pt", torch.ones(HUMANML.feature_dim))
    sizes = EvaluatorSizes(**{**vars(TINY), "features": HUMANML.feature_dim})
    write_evaluators(tmp_path / "t2m", sizes)
    write_glove(tmp_path / "glove", width=TINY.word)
    write_dataset(tmp_path / "dataset" / "HumanML3D", {"000001": 60, "000002": 80})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.parametrize(("line", "place"), PLACES.items())
def test_its_downloads_run_and_go_where_programs_look(line: str, place: str) -> None:
    command = [*shlex.split(line), "--dry_run"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert str(ROOT / place) in run.stdout


@pytest.mark.parametrize("line", PROGRAMS)
def test_its_programs_take_its_options(line: str) -> None:
    module, *arguments = shlex.split(line)[2:]
    options = parse_options(import_module(module).Options, arguments)
    path = Path(options.model_path)
    assert str(path) in CHECKPOINTS


def test_its_files_are_found_where_it_puts_them(release: Path) -> None:
    for task in check.TASKS:
        findings = check.check(parse_options(check.Options, ["--task", task]))
        assert [f"{f.asset.name}: {f.where}" for f in findings if not f.there] == []
    for name in CHECKPOINTS:
        assert read_model_args(name)["text_encoder_type"] == "builtin"


@pytest.mark.parametrize("folder", ["models", "pretrained_tmr"])
def test_the_published_reward_may_lie_in_either_folder(release: Path, folder: str) -> None:
    if folder == "models":
        (release / "pretrained_tmr").rename(release / "models")
    name = "tmr_humanml3d_guoh3dfeats"
    asked = [text_motion_sim.Options().run_dir, f"models/{name}", f"./pretrained_tmr/{name}"]
    assert {find_run(path) for path in asked} == {Path(folder, name)}
    assert find_run("save/reward") == Path("save/reward"), "a run of one's own is where it is"


def test_the_example_prompts_are_captions(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    line = next(line for line in PROGRAMS if "--input_text" in line)
    options = parse_options(import_module("sample.generate").Options, shlex.split(line)[3:])
    prompts = read_prompts(options)
    assert len(prompts) == 10
    assert all(" " in prompt for prompt in prompts)
