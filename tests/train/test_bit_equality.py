"""The losses of 20 steps at a fixed seed, bit by bit: what a refactoring must leave alone.

The digits in ``losses_20_steps.json`` were written by

    python -m tests.train.test_bit_equality

on the platform that the file names. There they are compared bit by bit; another processor or
version of PyTorch sums in another order, so that elsewhere they agree to a relative 1e-3.
"""

import platform
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_loaders.humanml import open_dataset
from data_loaders.skeleton import HUMANML
from prepare.procedural import dataset as synthetic
from tests.model.tiny import tiny_generator
from tests.tmr.tiny import tiny_tmr
from tests.train.scripts import PREFERENCE, read_metrics, run_main
from train.toy_example import OfflineData, Options, ToyGenerator, tune
from utils.files import read_json, write_json

DIGITS = Path(__file__).with_name("losses_20_steps.json")
STEPS = 20
METHODS = ("sopo", "usopo", "online_dpo", "combined_dpo", "sft")


def this_platform() -> str:
    backend = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {backend}, torch {torch.__version__.partition('+')[0]}, 1 thread"


class Chain:
    """A tiny dataset, an untrained base, an untrained reward and pairs; all from fixed seeds."""

    def __init__(self, root: Path) -> None:
        self.root, self.data = root, root / "data"
        synthetic.build(synthetic.Options(out=str(self.data), num_clips=60, captions_per_clip=2))
        stats = open_dataset("tiny", "train", str(self.data)).stats
        generator = tiny_generator(HUMANML, arch="trans_dec", cond_mask_prob=0.1)
        generator = replace(generator, stats=stats)
        args = {"dataset": "tiny", "data_dir": str(self.data)}
        self.base = generator.save(root / "base", 1, None, args)
        tiny_tmr(features=HUMANML.feature_dim).save(root / "reward")

    def common(self) -> list[str]:
        data = ["--dataset", "tiny", "--data_dir", str(self.data), "--device", "cpu"]
        return [*data, "--model_path", str(self.base), "--reward_path", str(self.root / "reward")]

    def make_pairs(self) -> None:
        arguments = [
            "--out",
            str(self.root / "pairs"),
            "--num_candidates",
            "2",
            "--batch_size",
            "4",
        ]
        run_main("prepare.preference_pairs", [*self.common(), *arguments])

    def losses(self, method: str) -> list[float]:
        """The loss of every step of the training command."""
        save_dir = self.root / method
        arguments = [*self.common(), *PREFERENCE.split(), "--save_dir", str(save_dir)]
        arguments += f"--method {method} --num_steps {STEPS} --lr 1e-3 --log_interval 1".split()
        arguments += ["--tau_quantile", "0.5", "--train_platform_type", "NoPlatform"]
        if method == "combined_dpo":
            self.make_pairs()
            arguments += ["--pairs_path", str(self.root / "pairs")]
        run_main("train.train_sopo", arguments)
        return [m["loss"] for m in read_metrics(save_dir) if "loss" in m]


def toy_weights() -> list[float]:
    """The toy generator's weights after 20 steps of SoPo: their sum, tensor by tensor."""
    base, data = ToyGenerator.base(0), OfflineData.draw(64, torch.Generator().manual_seed(0))
    policy = tune("sopo", base, data, Options(num_steps=STEPS, batch_size=8, num_candidates=2), 5)
    return [float(p.detach().double().sum()) for p in policy.model.parameters()]


def measure(root: Path) -> dict[str, list[float]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        chain = Chain(root)
        return {method: chain.losses(method) for method in METHODS} | {"toy": toy_weights()}
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, list[float]]:
    return measure(tmp_path_factory.mktemp("bits"))


@pytest.mark.parametrize("name", [*METHODS, "toy"])
def test_twenty_steps_are_those_of_before(measured, name: str) -> None:
    stored = read_json(DIGITS)
    found, expected = measured[name], stored["losses"][name]
    assert len(found) == len(expected)
    if this_platform() == stored["platform"]:
        assert found == expected
    else:
        assert found == pytest.approx(expected, rel=1e-3)


def test_the_steps_are_worth_comparing(measured) -> None:
    """Every method moves, and no two alike."""
    starts = [tuple(measured[method]) for method in METHODS]
    assert len(set(starts)) == len(METHODS)
    assert all(len(set(losses)) == STEPS for losses in starts)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_json(DIGITS, {"platform": this_platform(), "losses": measure(Path(folder))})
