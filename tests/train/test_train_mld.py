"""Latent diffusion from scratch, and tuned by every method; every refusal."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from data_loaders.skeleton import KIT
from diffusion.sampling import SamplerOptions
from eval import humanml_benchmark
from eval.humanml_benchmark import log_path
from model.families import load_generator
from model.latent.assembly import read_vae
from model.latent.checkpoints import save_checkpoint
from model.latent.denoiser import LatentDenoiser
from model.latent.generator import MLDGenerator
from model.lora import LORA_FILE
from tests.model.latent.test_generator import tiny_mld
from tests.model.latent.tiny import tiny_vae
from tests.model.tiny import tiny_stats
from tests.train.fakes import FirstFeature
from tests.train.scripts import Workspace, read_metrics, run_main, same_weights
from tests.train.test_scripts import refusal
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.methods import METHODS
from train.preference.options import PreferenceOptions
from utils.files import load_tensors, read_json, write_json

PAIRED = {"offline_dpo": "tmr", "combined_dpo": "tmr", "modipo_t": "tmr", "modipo_g": "evaluator"}


@pytest.fixture(scope="module")
def latent(workspace: Workspace, tmp_path_factory) -> Workspace:
    """The tiny dataset and reward, with a denoiser as base; its VAE is in the folder `vae`."""
    root = tmp_path_factory.mktemp("latent")
    space = replace(workspace, base=root / "base" / "model000000002.pt")
    space.run("train_mld", root / "vae", "--stage", "vae", "--use_ema")
    space.run("train_mld", space.base.parent, *diffusion(space))
    return space


def vae_folder(space: Workspace) -> Path:
    return space.base.parent.parent / "vae"


def diffusion(space: Workspace) -> list[str]:
    return ["--stage", "diffusion", "--vae_path", str(vae_folder(space))]


def options_of(space: Workspace, stage: str) -> list[str]:
    return diffusion(space) if stage == "diffusion" else ["--stage", stage]


@pytest.fixture(scope="module")
def pairs(latent: Workspace) -> Path:
    out = latent.base.parent.parent / "pairs"
    data = ["--dataset", "tiny", "--data_dir", str(latent.data), "--out", str(out)]
    models = ["--model_path", str(latent.base), "--reward_path", str(latent.reward)]
    few = ["--num_captions", "40", "--candidate_steps", "3", "--device", "cpu"]
    run_main("prepare.preference_pairs", [*data, *models, *few])
    return out


def test_both_stages_give_a_generator_that_loads(latent: Workspace) -> None:
    generator = load_generator(latent.base)
    assert isinstance(generator, MLDGenerator)
    sizes = generator.vae.config
    assert (sizes.latent_tokens, sizes.latent_dim, sizes.hidden_dim, sizes.layers) == (2, 8, 16, 3)
    assert generator.model.config.projected
    assert (generator.sampler, generator.scale) == (SamplerOptions("ddim", 50), 7.5)
    like = generator.blank(torch.tensor([8, 20]))
    found = generator.sample(generator.encode_text(["a man walks", "a man waves"]), like)
    assert generator.decode(found).x.shape == (2, 20, 263)


def test_the_losses_are_logged_and_the_best_is_that_of_val(latent: Workspace) -> None:
    first, *_ = [m for m in read_metrics(vae_folder(latent)) if "loss" in m]
    expected = first["features"] + first["joints"] + 1e-4 * first["kl"]
    assert first["loss"] == pytest.approx(expected, rel=1e-5)
    best = read_json(vae_folder(latent) / "best.json")
    assert 0 < best["joint_error"] < 10
    assert read_json(latent.base.parent / "best.json")["score"] > 0


def test_the_vae_of_the_second_stage_is_the_first_s_average_and_stays(latent: Workspace) -> None:
    average = load_tensors(vae_folder(latent) / "model000000002.pt")["state_dict_avg"]
    state = load_tensors(latent.base)["state_dict"]
    assert all(torch.equal(state[key], value) for key, value in average.items())
    statistics = read_vae(vae_folder(latent) / "model000000002.pt").stats
    assert torch.equal(load_generator(latent.base).stats.mean, statistics.mean)


def test_fresh_latents_are_drawn_from_a_vae_in_eval_mode(latent: Workspace, monkeypatch, tmp_path):
    draws: list[torch.Tensor] = []
    encode = MLDGenerator.encode

    def spy(self, raw, rng=None):
        assert not self.vae.training
        draws.append((found := encode(self, raw, rng)).x)
        assert not found.x.requires_grad
        return found

    monkeypatch.setattr(MLDGenerator, "encode", spy)
    latent.run("train_mld", tmp_path, *diffusion(latent), "--num_steps", "1", "--dropout", "0.5")
    assert len({float(x.sum()) for x in draws}) == len(draws) > 1


@pytest.mark.parametrize("stage", ["vae", "diffusion"])
def test_a_resumed_run_equals_an_unbroken_one(latent: Workspace, tmp_path, stage: str) -> None:
    changes = [*options_of(latent, stage), "--use_ema", "--val_interval", "2"]
    changes += ["--save_interval", "2", "--num_steps"]
    for folder, steps in (("whole", ["4"]), ("parts", ["2"]), ("parts", ["4", "--resume"])):
        latent.run("train_mld", tmp_path / folder, *changes, *steps)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert read_metrics(parts) == read_metrics(whole)
    assert same_weights(parts / "model000000004.pt", whole / "model000000004.pt")


@pytest.fixture
def new_precision():
    """The number type of a process is settled once; here for one test alone."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_whole_chain_runs_in_half_precision(latent: Workspace, tmp_path, new_precision) -> None:
    half = ["--precision", "bf16"]
    latent.run("train_mld", tmp_path / "vae", "--stage", "vae", *half)
    second = ["--stage", "diffusion", "--vae_path", str(tmp_path / "vae")]
    latent.run("train_mld", tmp_path / "base", *second, *half)
    tuning = ["--model_path", str(tmp_path / "base"), "--candidate_steps", "2", "--tau", "1"]
    latent.run("train_sopo", tmp_path / "sopo", *tuning, *half)
    for name in ("vae", "base", "sopo"):
        losses = [m["loss"] for m in read_metrics(tmp_path / name) if "loss" in m]
        assert len(losses) == 2
        assert all(0 < loss < 10 for loss in losses)


def test_some_steps_lower_the_loss_of_both_stages(latent: Workspace, tmp_path) -> None:
    for stage in ("vae", "diffusion"):
        changes = [*options_of(latent, stage), "--num_steps", "30", "--lr", "3e-3"]
        latent.run("train_mld", tmp_path / stage, *changes, "--dropout", "0")
        losses = [m["loss"] for m in read_metrics(tmp_path / stage) if "loss" in m]
        assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tunes_the_denoiser_alone(
    latent: Workspace, pairs: Path, tmp_path, method: str
) -> None:
    changes = ["--method", method, "--candidate_steps", "2", "--loser_min_t", "0.2", "--tau", "1"]
    if method in PAIRED:
        index = read_json(pairs / "index.json")
        options = {**index["options"], "reward": [PAIRED[method]]}
        write_json(pairs / "index.json", {**index, "options": options})
        changes += ["--pairs_path", str(pairs)]
    latent.run("train_sopo", tmp_path / "run", *changes)
    base, tuned = load_tensors(latent.base), load_tensors(tmp_path / "run" / latent.base.name)
    moved = [
        key
        for key, value in base["state_dict"].items()
        if not torch.equal(value, tuned["state_dict"][key])
    ]
    assert moved
    assert all(key.startswith("denoiser.") for key in moved)
    assert isinstance(load_generator(tmp_path / "run"), MLDGenerator)


def test_adapters_are_tuned_and_resumed(latent: Workspace, tmp_path) -> None:
    pytest.importorskip("peft")
    changes = ["--lora_rank", "2", "--candidate_steps", "2", "--tau", "1"]
    changes += ["--val_interval", "2", "--save_interval", "2"]
    for folder, steps in (("whole", ["4"]), ("parts", ["2"]), ("parts", ["4", "--resume"])):
        latent.run("train_sopo", tmp_path / folder, *changes, "--num_steps", *steps)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert read_metrics(parts) == read_metrics(whole)
    assert same_weights(parts / "model000000004.pt", whole / "model000000004.pt")
    assert (parts / LORA_FILE).read_bytes() == (whole / LORA_FILE).read_bytes()
    first = next(m for m in read_metrics(whole) if "loss" in m)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_candidates_are_drawn_as_the_family_does_unless_told(
    latent: Workspace, tmp_path, monkeypatch
) -> None:
    class Started(Exception):
        pass

    def start(options, policy, *others):
        raise Started(policy.sampler, policy.scale)

    monkeypatch.setattr("train.train_sopo.PreferenceTask", start)
    for changes, expected in (
        ([], (SamplerOptions("ddim", 50), 7.5)),
        (["--candidate_steps", "8"], (SamplerOptions("ddim", 8), 7.5)),
        (["--candidate_sampler", "dpm", "--guidance_param", "2"], (SamplerOptions("dpm", 50), 2.0)),
    ):
        with pytest.raises(Started) as found:
            latent.run("train_sopo", tmp_path, *changes)
        assert found.value.args == expected


def test_evaluations_are_named_by_the_family_s_guidance(workspace: Workspace, latent: Workspace):
    for model, scale in ((workspace.base, "2.5"), (latent.base, "7.5")):
        path = log_path(humanml_benchmark.Options(model_path=str(model), eval_mode="debug"))
        assert f"_gscale{scale}_debug" in path.name
        assert "ddim" not in path.name
    options = humanml_benchmark.Options(sampler="dpm", sample_steps=8, device="cpu")
    found = options.load_generator(latent.base, torch.device("cpu"))
    assert (found.sampler, found.scale) == (SamplerOptions("dpm", 8), 7.5)


def test_two_candidates_are_drawn_unless_told() -> None:
    for count, expected in ((None, 2), (3, 3)):
        options = PreferenceOptions(num_candidates=count)
        algorithm = PreferenceAlgorithm(options, tiny_mld(), FirstFeature())
        assert algorithm.candidates.num_candidates == expected


def test_bad_input_is_told_in_one_line_and_writes_nothing(
    latent: Workspace, tmp_path, capsys
) -> None:
    """Before any step."""

    def refused(script: str, *changes: str) -> str:
        arguments = [*latent.arguments(script, tmp_path / "run"), *changes]
        message = refusal(capsys, f"train.{script}", arguments)
        assert not (tmp_path / "run").exists()
        return message

    second = diffusion(latent)
    assert "--stage is required" in refused("train_mld")
    assert "needs --vae_path" in refused("train_mld", "--stage", "diffusion")
    assert "takes none" in refused("train_mld", *second, "--stage", "vae")
    assert "the VAE of" in refused("train_mld", *second, "--latent_dim", "4")
    assert "--num_heads 4" in refused("train_mld", *second, "--num_heads", "4")
    assert "no multiple of" in refused("train_mld", "--stage", "vae", "--num_heads", "3")
    assert "must be odd" in refused("train_mld", "--stage", "vae", "--layers", "2")
    short = refused("train_mld", "--stage", "vae", "--max_positions", "30")
    assert "longer than this VAE's positions" in short
    shown = refused("train_mld", "--stage", "vae", "--gen_during_training")
    assert "a VAE alone generates nothing" in shown
    assert "without a denoiser" in refused("train_sopo", "--model_path", str(vae_folder(latent)))
    assert "errors of the noise" in refused("train_sopo", "--omega", "snr")
    assert "exceed" in refused("train_sopo", "--candidate_steps", "51")


def test_models_of_another_skeleton_or_kind_are_refused(
    latent: Workspace, tmp_path, capsys
) -> None:
    settings = tiny_mld().settings
    vae = {"vae": tiny_vae(num_features=KIT.feature_dim)}
    save_checkpoint(tmp_path / "kit", 1, vae, tiny_stats(KIT), settings, args={"dataset": "kit"})
    arguments = [*latent.arguments("train_mld", tmp_path / "run"), "--stage", "diffusion"]
    arguments += ["--vae_path", str(tmp_path / "kit")]
    assert "is of motions of 251 features" in refusal(capsys, "train.train_mld", arguments)
    tiny_mld().save(tmp_path / "base", 1, None, {})
    arguments = [*latent.arguments("train_sopo", tmp_path / "run")]
    base = ["--model_path", str(tmp_path / "base")]
    assert "makes kit motions" in refusal(capsys, "train.train_sopo", [*arguments, *base])


def test_a_consistency_student_is_refused_with_the_reason(
    latent: Workspace, tmp_path, capsys
) -> None:
    base = load_generator(latent.base)
    config = replace(base.model.config, guidance_dim=8)
    student = replace(base, model=LatentDenoiser(config))
    path = student.save(tmp_path / "student", 1, None, {"dataset": "tiny"})
    arguments = [*latent.arguments("train_sopo", tmp_path / "run"), "--model_path", str(path)]
    assert "tune the model that it was distilled from" in refusal(
        capsys, "train.train_sopo", arguments
    )
