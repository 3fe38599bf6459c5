"""The training commands from start to end: results, resume, and every refusal in one line."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.families import load_generator
from sample.results import load_results
from tests.paths import ROOT
from tests.train.scripts import Workspace, contents, read_metrics, run_main, same_weights
from tmr.model import TMR
from utils.files import read_json, write_json

SCRIPTS = ["train_tmr", "train_mdm", "train_sopo"]


def weights_of(script: str, save_dir: Path, step: int) -> Path:
    if script == "train_tmr":
        return save_dir / "last_weights" / "motion_encoder.pt"
    return save_dir / f"model{step:09d}.pt"


def test_train_tmr_writes_a_reward_that_loads(workspace: Workspace) -> None:
    files = contents(workspace.reward)
    assert {"config.json", "args.json", "best.json", "resume.pt", "metrics.jsonl"} <= set(files)
    tmr = TMR.load(workspace.reward)
    assert (tmr.config.latent_dim, tmr.config.layers) == (16, 1)
    steps = [m for m in read_metrics(workspace.reward) if "loss" in m]
    assert [m["step"] for m in steps] == [1, 2]
    assert {"recons", "kl", "latent", "contrastive", "lr", "grad_norm"} <= set(steps[0])


def test_train_mdm_writes_a_generator_that_loads(workspace: Workspace) -> None:
    args = read_json(workspace.base.parent / "args.json")
    assert (args["diffusion_steps"], args["use_ema"], args["dataset"]) == (4, True, "tiny")
    generator = load_generator(workspace.base)
    motion = generator.draw(generator.encode_text(["a man walks"]), torch.tensor([8]))
    assert motion.shape == (1, 8, 263)
    assert torch.isfinite(motion).all()


def test_train_sopo_tunes_the_base_and_touches_nothing_else(
    workspace: Workspace, tmp_path, capsys
) -> None:
    folders = (workspace.base.parent, workspace.reward)
    before = [contents(folder) for folder in folders]
    workspace.run("train_sopo", tmp_path, "--tau", "0.5")
    assert [contents(folder) for folder in folders] == before
    assert "share below tau = 0.500" in capsys.readouterr().out
    steps = [m for m in read_metrics(tmp_path) if "loss" in m]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    expected = {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}
    assert expected | {"gate/share_below_tau", "gate/tau"} <= set(steps[0])
    tuned, base = (
        load_generator(p).model for p in (tmp_path / workspace.base.name, workspace.base)
    )
    pairs = zip(tuned.parameters(), base.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert read_json(tmp_path / "best.json")["path"].startswith("model")


def test_train_sopo_starts_from_the_averaged_weights(workspace: Workspace, tmp_path) -> None:
    workspace.run("train_sopo", tmp_path, "--lr", "0", "--num_steps", "1")
    tuned = load_generator(tmp_path / "model000000001.pt").model.state_dict()
    average = load_generator(workspace.base).model.state_dict()
    assert all(torch.equal(average[k], v) for k, v in tuned.items())


@pytest.mark.parametrize("compile", ["true", "false"])
def test_compile_reaches_the_policy(
    workspace: Workspace, tmp_path, monkeypatch, compile: str
) -> None:
    class Started(Exception):
        pass

    def start(options, policy, *others):
        raise Started(str(policy.compiled).lower())

    monkeypatch.setattr("train.train_sopo.PreferenceTask", start)
    with pytest.raises(Started, match=compile):
        workspace.run("train_sopo", tmp_path, "--compile", compile)


def test_upstreams_name_of_the_base_checkpoint(workspace: Workspace, tmp_path) -> None:
    changes = ["--model_path", "nowhere.pt", "--resume_checkpoint", str(workspace.base)]
    workspace.run("train_sopo", tmp_path, *changes, "--method", "sft", "--num_steps", "1")
    assert (tmp_path / "model000000001.pt").is_file()


def test_sft_trains_without_rewards_or_probe(workspace: Workspace, tmp_path, capsys) -> None:
    workspace.run("train_sopo", tmp_path, "--method", "sft")
    assert "share below" not in capsys.readouterr().out
    steps = [m for m in read_metrics(tmp_path) if "loss" in m]
    assert len(steps) == 2
    assert not [name for name in steps[0] if name.startswith(("rewards/", "gate/"))]
    assert not same_weights(tmp_path / workspace.base.name, workspace.base)


@pytest.mark.parametrize(
    ("script", "changes"),
    [
        ("train_tmr", ["--dropout", "0.2"]),
        ("train_mdm", ["--dropout", "0.2", "--use_ema"]),
        ("train_sopo", ["--tau_quantile", "0.5"]),
        ("train_sopo", ["--method", "sft", "--candidate_sampler", "ddim"]),
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(
    workspace: Workspace, tmp_path, script: str, changes: list[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = [*changes, "--val_interval", "2", "--save_interval", "2"]
    workspace.run(script, whole, *changes, "--num_steps", "4")
    workspace.run(script, parts, *changes, "--num_steps", "2")
    workspace.run(script, parts, *changes, "--num_steps", "4", "--resume")
    assert read_metrics(parts) == read_metrics(whole)
    assert [m["step"] for m in read_metrics(parts) if "loss" in m] == [1, 2, 3, 4]
    assert same_weights(weights_of(script, parts, 4), weights_of(script, whole, 4))


def test_a_run_of_other_options_is_not_resumed(workspace: Workspace, tmp_path, capsys) -> None:
    workspace.run("train_sopo", tmp_path, "--tau", "0.5")
    before = contents(tmp_path)
    arguments = [*workspace.arguments("train_sopo", tmp_path), "--resume", "--method", "dsopo"]
    message = refusal(capsys, "train.train_sopo", [*arguments, "--tau", "0.9", "--beta", "7"])
    changed = ("--method sopo -> dsopo", "--tau 0.5 -> 0.9", "--beta 1.0 -> 7.0")
    assert all(words in message for words in changed)
    assert message.count(" -> ") == len(changed)
    assert contents(tmp_path) == before


def test_a_run_whose_files_were_moved_goes_on(workspace: Workspace, tmp_path) -> None:
    arguments = ["--tau", "0.5", "--val_interval", "2", "--save_interval", "2"]
    workspace.run("train_sopo", tmp_path / "run", *arguments)
    moved = shutil.copytree(workspace.reward, tmp_path / "moved")
    arguments += ["--reward_path", str(moved), "--num_steps", "3", "--resume"]
    workspace.run("train_sopo", tmp_path / "run", *arguments)
    assert read_json(tmp_path / "run" / "args.json")["reward_path"] == [str(moved)]


def test_the_seed_decides(workspace: Workspace, tmp_path) -> None:
    losses = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        workspace.run("train_mdm", tmp_path / name, "--seed", seed)
        losses.append([m["loss"] for m in read_metrics(tmp_path / name) if "loss" in m])
    assert losses[0] == losses[1] != losses[2]


def refusal(capsys, module: str, arguments: list[str]) -> str:
    """The one line on stderr with which a command ends, after checking that it is one."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_main(module, arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    return error


BAD = [
    ("train_sopo", ["--num_candidates", "0"], "--num_candidates 0 is too small"),
    ("train_sopo", ["--tau", "1.2"], "--tau 1.2 is too large"),
    ("train_sopo", ["--tau", "-0.1"], "--tau -0.1 is too small"),
    ("train_sopo", ["--tau_quantile", "nan"], "--tau_quantile nan"),
    ("train_sopo", ["--preferred_weight_c", "0.5"], "--preferred_weight_c 0.5 is too small"),
    ("train_sopo", ["--method", "ppo"], "--method ppo is unknown; choose one of sopo, dsopo"),
    ("train_sopo", ["--reward_path", "nowhere"], "nowhere is not a TMR run folder"),
    ("train_sopo", ["--model_path", "nowhere/model000000001.pt"], "does not exist"),
    ("train_sopo", ["--candidate_steps", "9"], "9 sampling steps exceed the model's 4"),
    ("train_sopo", ["--batch_size", "999"], "999 x 1 processes exceeds the"),
    ("train_sopo", ["--method", "modipo_t"], "--method modipo_t needs --pairs_path FOLDER"),
    ("train_sopo", ["--pairs_path", "pairs"], "--method sopo reads no fixed pairs"),
    ("train_sopo", ["--method", "offline_dpo", "--pairs_path", "no"], "no holds no preference"),
    ("train_sopo", ["--method", "online_dpo", "--num_candidates", "1"], "must be at least 2"),
    ("train_sopo", ["--reward", "clip"], "--reward clip is unknown; choose one of tmr, evaluator"),
    ("train_sopo", ["--reward_weights", "1", "2"], "--reward_weights holds 2 for 1 rewards"),
    ("train_sopo", ["--reward", "evaluator"], "no evaluators are published for dataset tiny"),
    ("train_mdm", ["--arch", "mamba"], "--arch mamba is unknown"),
    ("train_mdm", ["--resume"], "start without --resume"),
    ("train_sopo", ["--lrr", "1"], "--lrr is no option (did you mean --lr?)"),
    ("train_sopo", ["--lr", "fast"], "--lr: invalid float value: 'fast'"),
    ("train_tmr", ["--phrasings", "some"], "--phrasings some is unknown"),
    ("train_tmr", ["--text_encoder_type", "clip"], "choose one of bert, builtin"),
    *[(script, ["--data_dir", "nowhere"], "folder nowhere does not exist") for script in SCRIPTS],
    *[(script, ["--device", "gpu"], "--device gpu is unknown") for script in SCRIPTS],
]


@pytest.mark.parametrize(("script", "changes", "message"), BAD)
def test_bad_input_is_told_in_one_line_and_writes_nothing(
    workspace: Workspace, tmp_path, capsys, script: str, changes: list[str], message: str
) -> None:
    save_dir = tmp_path / "run"
    arguments = [*workspace.arguments(script, save_dir), *changes]
    assert message in refusal(capsys, f"train.{script}", arguments)
    assert not save_dir.exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_existing_folder_is_left_alone(
    workspace: Workspace, tmp_path, capsys, script: str
) -> None:
    (tmp_path / "args.json").write_text("precious")
    (tmp_path / "model000000002.pt").write_text("precious")
    before = contents(tmp_path)
    message = refusal(capsys, f"train.{script}", workspace.arguments(script, tmp_path))
    assert "already holds files; add --overwrite or --resume" in message
    assert contents(tmp_path) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_option_in_a_file_is_named(
    workspace: Workspace, tmp_path, capsys, script: str
) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("lr: 0.1\nlearning_rate: 0.1\n")
    arguments = [*workspace.arguments(script, tmp_path / "run"), "--config", str(config)]
    message = refusal(capsys, f"train.{script}", arguments)
    assert "has unknown options: learning_rate" in message


def test_a_checkpoint_of_another_architecture_is_refused(
    workspace: Workspace, tmp_path, capsys
) -> None:
    model_path = tmp_path / "other" / workspace.base.name
    model_path.parent.mkdir()
    model_path.write_bytes(workspace.base.read_bytes())
    args = json.loads((workspace.base.parent / "args.json").read_text())
    write_json(model_path.parent / "args.json", {**args, "layers": 2})
    arguments = workspace.arguments("train_sopo", tmp_path / "run")
    arguments += ["--model_path", str(model_path), "--data_dir", str(workspace.data)]
    assert "another architecture" in refusal(capsys, "train.train_sopo", arguments)
    arguments = workspace.arguments("train_mdm", tmp_path / "run")
    arguments += ["--layers", "2", "--resume_checkpoint", str(workspace.base)]
    assert "another architecture" in refusal(capsys, "train.train_mdm", arguments)


def test_a_reward_of_another_skeleton_is_refused(workspace: Workspace, tmp_path, capsys) -> None:
    from tests.tmr.tiny import tiny_tmr

    tiny_tmr(features=251).save(tmp_path / "kit")
    arguments = workspace.arguments("train_sopo", tmp_path / "run")
    message = refusal(
        capsys, "train.train_sopo", [*arguments, "--reward_path", str(tmp_path / "kit")]
    )
    assert "the reward takes 251 features" in message


def test_the_command_itself_exits_with_code_2(workspace: Workspace, tmp_path) -> None:
    arguments = workspace.arguments("train_sopo", tmp_path / "run")
    run = subprocess.run(
        [sys.executable, "-m", "train.train_sopo", *arguments, "--reward_path", "nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("error: nowhere is not a TMR run folder")


def test_every_checkpoint_can_be_shown(workspace: Workspace, tmp_path) -> None:
    changes = "--gen_during_training --gen_num_samples 2 --gen_num_repetitions 1 --save_interval 1"
    workspace.run("train_mdm", tmp_path, *changes.split())
    for step in (1, 2):
        folder = tmp_path / f"samples_{tmp_path.name}_{step:09d}_seed10"
        assert load_results(folder / "results.npy").motion.shape[:2] == (2, 22)


def test_a_shown_run_equals_an_unseen_one(workspace: Workspace, tmp_path) -> None:
    changes = ["--dropout", "0.2", "--save_interval", "1"]
    for name, shown in (("shown", ["--gen_during_training"]), ("unseen", [])):
        workspace.run("train_mdm", tmp_path / name, *changes, *shown, "--gen_num_samples", "1")
    assert same_weights(*(tmp_path / n / workspace.base.name for n in ("shown", "unseen")))


def test_a_benchmark_without_evaluators_is_refused_at_once(
    workspace: Workspace, tmp_path, capsys
) -> None:
    arguments = [*workspace.arguments("train_mdm", tmp_path / "run"), "--eval_during_training"]
    assert "evaluators" in refusal(capsys, "train.train_mdm", arguments)
    assert not (tmp_path / "run").exists()


def test_upstreams_training_command_is_understood(workspace: Workspace, tmp_path) -> None:
    upstream = (
        "--cuda False --device 0 --lr_anneal_steps 10 --weight_decay 0.01 --adam_beta2 0.99 "
        "--use_ema --avg_model_beta 0.999 --sigma_small True --lambda_rcxyz 0.0 --lambda_vel 0 "
        "--lambda_fc 0 --noise_schedule cosine --num_frames 60 --cond_mask_prob 0.1 "
        "--eval_during_training false --eval_split val --eval_batch_size 32 --eval_rep_times 3"
    )
    workspace.run("train_mdm", tmp_path, *upstream.split())
    assert load_generator(tmp_path / workspace.base.name).model.config.cond_mask_prob == 0.1
