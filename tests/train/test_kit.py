"""The whole chain on KIT-ML's layout: 21 joints, 251 features, 12.5 fps."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_loaders.humanml import open_dataset
from data_loaders.skeleton import HUMANML, KIT
from model.latent.losses import VAELossWeights
from prepare.procedural import dataset as synthetic
from sample.results import load_results
from tests.model.latent.tiny import tiny_vae
from tests.model.tiny import tiny_stats
from tests.train.scripts import Workspace, read_metrics, run_main
from tmr.model import TMR
from train import train_mld
from utils.files import read_json


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Workspace:
    """The generated set on KIT's body, with a base model and a reward."""
    root = tmp_path_factory.mktemp("kit")
    options = {"num_clips": 60, "captions_per_clip": 2, "skeleton": "kit"}
    synthetic.build(synthetic.Options(out=str(root / "KIT-ML"), **options))
    names = (root / "KIT-ML" / "all.txt").read_text().split()
    (root / "KIT-ML" / "val.txt").write_text("\n".join(names[:16]))
    space = Workspace(root / "KIT-ML", root / "base" / "model000000002.pt", root / "reward")
    space.run("train_mdm", space.base.parent, "--dataset", "kit")
    space.run("train_tmr", space.reward, "--dataset", "kit")
    return space


@pytest.fixture(scope="module")
def latent(kit: Workspace) -> Workspace:
    """The same with a latent model as base."""
    root = kit.base.parent.parent
    kit.run("train_mld", root / "vae", "--dataset", "kit", "--stage", "vae")
    second = ["--stage", "diffusion", "--vae_path", str(root / "vae")]
    kit.run("train_mld", root / "latent", "--dataset", "kit", *second)
    return replace(kit, base=root / "latent" / "model000000002.pt")


def test_a_reward_for_kit_reads_its_own_features(kit: Workspace) -> None:
    assert TMR.load(kit.reward).stats.feature_dim == 251


@pytest.fixture(params=["kit", "latent"])
def space(request) -> Workspace:
    return request.getfixturevalue(request.param)


def test_sopo_trains_on_kit(space: Workspace, tmp_path: Path) -> None:
    changes = ["--dataset", "kit", "--tau_quantile", "0.5", "--candidate_steps", "2"]
    space.run("train_sopo", tmp_path, *changes)
    assert len([m for m in read_metrics(tmp_path) if "loss" in m]) == 2


def test_generated_motions_have_21_joints_and_kits_duration(
    space: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "samples"
    arguments = f"--model_path {space.base} --motion_length 2 --video none --output_dir {out}"
    run_main("sample.generate", [*arguments.split(), "--text_prompt", "a person walks"])
    assert load_results(out / "results.npy").motion.shape == (3, 21, 3, 25)


def test_models_of_kit_are_judged(space: Workspace, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    arguments = f"--dataset kit --data_dir {space.data} --model_path {space.base} --output {table}"
    rewards = f"--reward_path {space.reward} --judge_path {space.reward} --device cpu"
    run_main("eval.eval_tmr", [*arguments.split(), *rewards.split(), "--split", "val"])
    (figures,) = read_json(table)["rows"][space.base.parent.name]
    assert 0 <= figures["reward"] <= 1
    more = "--split val --best_of 3"
    run_main("eval.eval_tmr", [*arguments.split(), *rewards.split(), *more.split()])
    (best,) = read_json(table)["rows"][space.base.parent.name]
    assert best["reward"] > figures["reward"]
    assert figures["invalid_motions"] == 0


def test_a_metre_weighs_the_same_on_both_bodies(kit: Workspace) -> None:
    """KIT's joints are in millimetres, which would drown the features."""
    data = open_dataset("kit", "train", str(kit.data))
    for given, weight in ((None, 0.001), (1.0, 1.0)):
        options = train_mld.Options(stage="vae", dataset="kit", joint_weight=given)
        vae = tiny_vae(num_features=KIT.feature_dim)
        task = train_mld.VAETask(options, vae, tiny_stats(KIT), data, data)
        assert task.weights.joints == weight
    assert VAELossWeights().joints == 1 / HUMANML.units_per_metre
