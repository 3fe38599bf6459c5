"""The models that come with the project: whole, small, and made as their card says."""

import hashlib
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import torch

from data_loaders.humanml import open_dataset
from model.families import load_generator
from model.mdm.checkpoints import read_weights
from model.shipped import (
    CARD_FILE,
    EVALUATORS_FOLDER,
    JUDGE_FILE,
    MODEL_FILE,
    REWARD_FILE,
    SHIPPED,
)
from prepare import synthetic
from rewards.co_embedding import CoEmbedder, EvaluatorFiles
from tests.train.scripts import read_metrics, run_main
from tmr.model import TMR
from train import ship_weights
from train.denoising import DenoisingTask
from train.model_card import data_digest, half
from train.ship_weights import READ
from train.train_tmr import RetrievalTask
from utils.errors import UserError
from utils.files import read_json

MEGABYTE = 2**20
CARD = read_json(SHIPPED / CARD_FILE)


@pytest.mark.parametrize("name", CARD["models"])
def test_the_files_are_those_of_the_card(name: str) -> None:
    model = CARD["models"][name]
    content = (SHIPPED / model["file"]).read_bytes()
    assert len(content) == model["bytes"]
    assert hashlib.sha256(content).hexdigest() == model["sha256"]


def test_they_are_small_together() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 8 * MEGABYTE


def test_every_loader_reads_them() -> None:
    generator = load_generator(SHIPPED / MODEL_FILE)
    condition = generator.encode_text(["a person jumps twice"])
    raw = generator.decode(generator.sample(condition, generator.blank(torch.tensor([40]))))
    for name in (REWARD_FILE, JUDGE_FILE):
        assert TMR.load(SHIPPED / name).encode_motions(raw.x, raw.frames).isfinite().all()
    folder = SHIPPED / EVALUATORS_FOLDER
    files = EvaluatorFiles.find("synthetic_large", SHIPPED, str(folder))
    embedder = CoEmbedder.load(files, torch.device("cpu"))
    normalised = embedder.stats.normalize(raw.x)
    assert embedder.embed_motions(normalised, raw.frames).shape == (1, embedder.width)


@pytest.mark.parametrize("name", CARD["models"])
def test_their_commands_parse(name: str) -> None:
    _, _, script, *words = shlex.split(CARD["models"][name]["command"])
    options = import_module(script).Options
    named = {word[2:] for word in words if word.startswith("--")}
    assert named <= set(vars(options()))


def test_half_precision_keeps_what_it_can_hold() -> None:
    state = {"a": torch.tensor([1.0, -0.3333])}
    assert half(state)["a"].dtype == torch.float16
    torch.testing.assert_close(half(state)["a"].float(), state["a"], rtol=1e-3, atol=0)
    with pytest.raises(UserError, match="b exceeds the range"):
        half({"b": torch.tensor([1e6])})


def test_a_digest_sees_every_file_that_a_training_reads(workspace, tmp_path) -> None:
    before = data_digest(workspace.data, *READ)
    annotations = workspace.data / "annotations.json"
    content = annotations.read_bytes()
    annotations.write_bytes(content + b" ")
    assert data_digest(workspace.data, *READ) != before
    annotations.write_bytes(content)
    assert data_digest(workspace.data, *READ) == before


def test_a_base_is_shipped_with_its_averaged_weights(workspace, tmp_path) -> None:
    path = ship_weights.ship_base(workspace.base, tmp_path)
    assert path.name == "model000000002.safetensors"
    shipped, average = read_weights(path), read_weights(workspace.base, use_ema=True)
    for key, value in shipped.items():
        torch.testing.assert_close(value.float(), average[key], rtol=1e-3, atol=1e-6)
    stats = load_generator(path).stats
    assert torch.equal(stats.mean, load_generator(workspace.base).stats.mean)


class Enough(Exception):
    """The first steps are done."""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    """The dataset of the shipped models."""
    folder = tmp_path_factory.mktemp("embedded") / "dataset" / "synthetic_large"
    made = {name: CARD["data"]["made_with"][name] for name in ("num_clips", "seed")}
    synthetic.build(synthetic.Options(out=str(folder), **made))
    data = open_dataset("synthetic_large", "train", str(folder))
    assert len(data) == CARD["data"]["made_with"]["clips"]["train"]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"), [("base", DenoisingTask), ("reward", RetrievalTask), ("judge", RetrievalTask)]
)
def test_the_first_steps_of_a_training_are_those_of_the_card(
    name: str, task: type, embedded: Path, tmp_path, monkeypatch
) -> None:
    """Processors sum in different orders; the losses of the first steps differ little by that."""
    step, last = task.step, max(map(int, CARD["models"][name]["losses"]))

    def stop_after_the_last(self, batch, number, rng):
        if number == last:
            raise Enough
        return step(self, batch, number, rng)

    monkeypatch.setattr(task, "step", stop_after_the_last)
    _, _, script, *words = shlex.split(CARD["models"][name]["command"])
    places = ["--data_dir", str(embedded), "--save_dir", str(tmp_path / name), "--device", "cpu"]
    with pytest.raises(Enough):
        run_main(script, [*words, *places, "--train_platform_type", "NoPlatform"])
    found = {str(line["step"]): line["loss"] for line in read_metrics(tmp_path / name)}
    assert found == pytest.approx(CARD["models"][name]["losses"], rel=0.02)
