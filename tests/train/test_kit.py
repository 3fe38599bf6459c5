"""The whole chain on KIT-ML's layout: 21 joints, 251 features, 12.5 fps."""

from pathlib import Path

import numpy as np
import pytest

from data_loaders.skeleton import KIT
from sample.results import load_results
from tests.data_loaders.datasets import caption_line, write_dataset
from tests.train.scripts import Workspace, read_metrics, run_main
from tmr.model import TMR
from utils.files import read_json

ACTIONS = ("walks", "runs", "jumps", "kneels", "waves", "kicks", "bows", "sits")


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Workspace:
    """Sixteen clips of smooth random features, with a base model and a reward."""
    root = tmp_path_factory.mktemp("kit")
    lengths = {f"{i:05d}": 24 + 2 * i for i in range(16)}
    captions = {name: caption_line(f"a person {ACTIONS[int(name) % 8]}") for name in lengths}
    data = write_dataset(root / "KIT-ML", lengths, captions, skeleton=KIT)
    rng = np.random.default_rng(0)
    for name, length in lengths.items():
        steps = rng.normal(size=(length, KIT.feature_dim))
        motion = np.cumsum(steps, axis=0) / np.sqrt(length)
        np.save(data / "new_joint_vecs" / f"{name}.npy", motion.astype(np.float32))
    space = Workspace(data, root / "base" / "model000000002.pt", root / "reward")
    space.run("train_mdm", space.base.parent, "--dataset", "kit")
    space.run("train_tmr", space.reward, "--dataset", "kit")
    return space


def test_a_reward_for_kit_reads_its_own_features(kit: Workspace) -> None:
    assert TMR.load(kit.reward).stats.feature_dim == 251


def test_sopo_trains_on_kit(kit: Workspace, tmp_path: Path) -> None:
    kit.run("train_sopo", tmp_path, "--dataset", "kit", "--tau_quantile", "0.5")
    assert len([m for m in read_metrics(tmp_path) if "loss" in m]) == 2


def test_generated_motions_have_21_joints_and_kits_duration(kit: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    arguments = f"--model_path {kit.base} --motion_length 2 --video none --output_dir {out}".split()
    run_main("sample.generate", [*arguments, "--text_prompt", "a person walks"])
    assert load_results(out / "results.npy").motion.shape == (3, 21, 3, 25)


def test_models_of_kit_are_judged(kit: Workspace, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    arguments = f"--dataset kit --data_dir {kit.data} --model_path {kit.base} --output {table}"
    rewards = f"--reward_path {kit.reward} --judge_path {kit.reward} --device cpu"
    run_main("eval.eval_tmr", [*arguments.split(), *rewards.split()])
    (figures,) = read_json(table)["rows"]["base"]
    assert 0 <= figures["reward"] <= 1
    assert figures["invalid_motions"] == 0
