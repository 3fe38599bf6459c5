"""Training evaluators: the losses in closed form, and the two stages from start to end."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.humanml import open_dataset
from data_loaders.normalizer import Statistics
from model.text.encoders import BuiltinEncoder
from prepare.procedural import dataset as synthetic
from rewards.co_embedding import CoEmbedder, EvaluatorFiles, Evaluators
from rewards.word_vectors import WordVectorizer
from tests.data_loaders.datasets import write_dataset
from tests.rewards.glove import write_glove
from tests.train.scripts import EVALUATOR_SIZES, read_metrics, run_main
from train.evaluator_tasks import MovementTask, Windows, matching_loss, movement_loss
from train.train_evaluators import evaluator_statistics, real_figures, vectorizer_of
from utils.errors import UserError
from utils.files import load_tensors, read_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 synthetic clips with annotations; all are in val, so that pools can be filled."""
    folder = tmp_path_factory.mktemp("evaluators") / "data"
    synthetic.build(synthetic.Options(out=str(folder), num_clips=60, captions_per_clip=2))
    (folder / "val.txt").write_text((folder / "all.txt").read_text())
    return folder


def train(folder: Path, save_dir: Path, *others: str) -> None:
    arguments = ["--dataset", "tiny", "--data_dir", str(folder), "--save_dir", str(save_dir)]
    run_main("train.train_evaluators", [*arguments, *EVALUATOR_SIZES.split(), *others])


def finest(save_dir: Path) -> Path:
    return save_dir / "text_mot_match" / "model" / "finest.tar"


def test_matching_loss_in_closed_form() -> None:
    texts = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    losses = matching_loss(texts, texts.clone(), 1, ["a", "b", "c"], margin=10.0)
    assert losses["positive"] == pytest.approx(0, abs=1e-10)
    # distances from text i to motion i + 1: 3, 5, 4
    assert float(losses["negative"]) == pytest.approx((49 + 25 + 36) / 3, rel=1e-5)
    assert matching_loss(texts, texts, 1, ["a", "b", "c"], margin=2.0)["negative"] == 0
    moved = matching_loss(texts, texts + torch.tensor([2.0, 0.0]), 1, ["a", "b", "c"], 10.0)
    assert float(moved["positive"]) == pytest.approx(4, rel=1e-5)


def test_paraphrases_are_no_negatives() -> None:
    texts = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    losses = matching_loss(texts, texts.clone(), 1, ["a", "a", "b"], margin=10.0)
    assert float(losses["negative"]) == pytest.approx((25 + 36) / 2, rel=1e-5)
    assert matching_loss(texts, texts.clone(), 1, ["a"] * 3, margin=10.0)["negative"] == 0


def test_movement_loss_in_closed_form() -> None:
    movements = torch.tensor([[[1.0], [-3.0]]])
    autoencoder = torch.nn.ModuleDict(
        {"movement_enc": Constant(movements), "movement_dec": Constant(torch.ones(1, 8, 5))}
    )
    losses = movement_loss(autoencoder, torch.full((1, 8, 5), 3.0))
    assert float(losses["recons"]) == 2
    assert float(losses["sparsity"]) == pytest.approx(0.001 * 2)
    assert float(losses["smoothness"]) == pytest.approx(0.001 * 4)


class Constant(torch.nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value


def test_windows_are_all_stretches_of_one_clip_whatever_its_length(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "HumanML3D", {"a": 40, "short": 26, "tiny": 20, "long": 230})
    data = open_dataset("humanml", "train", str(folder))
    windows = Windows(data, "train", data.stats, frames=24)
    assert len(windows) == 17 + 3 + 207
    raw = data.stats.denormalize(windows.motion(np.arange(len(windows))))
    assert raw.shape == (227, 24, 263)
    torch.testing.assert_close(raw[:, 1:, 0] - raw[:, :-1, 0], torch.ones(227, 23))
    assert len({float(row[0, 0]) for row in raw}) == 227
    assert len(Windows(data, "train", data.stats, 24, stride=24)) == 1 + 1 + 9
    with pytest.raises(UserError, match="--window"):
        Windows(data, "train", data.stats, frames=300)


def test_root_and_contacts_weigh_25_times_more() -> None:
    stats = evaluator_statistics(Statistics("d", torch.ones(263), torch.full((263,), 5.0)))
    assert stats.std[:4].tolist() == stats.std[-4:].tolist() == [pytest.approx(0.2)] * 4
    assert (stats.std[4:-4] == 5).all()
    assert (stats.mean == 1).all()


def test_built_in_vectors_know_the_words_and_survive_the_folder(
    folder: Path, tmp_path: Path
) -> None:
    data = open_dataset("tiny", "train", str(folder))
    vectorizer = vectorizer_of(BuiltinEncoder(), data)
    vectorizer.save(tmp_path / "glove")
    loaded = WordVectorizer.load(tmp_path / "glove")
    tokens = [caption.tokens for entry in data.entries for caption in entry.captions]
    ours, theirs = vectorizer.encode(tokens), loaded.encode(tokens)
    assert torch.equal(ours.words, theirs.words)
    assert torch.equal(ours.classes, theirs.classes)
    word = tokens[0][0].split("/")[0]
    np.testing.assert_array_equal(ours.words[0, 1], BuiltinEncoder().word(word))
    assert loaded.token("zyzzyva/NOUN")[0] == loaded.rows["unk"]


def test_the_trained_folder_serves_the_evaluation(folder: Path, tmp_path: Path, capsys) -> None:
    train(folder, tmp_path, "--movement_steps", "3", "--num_steps", "3")
    shown = capsys.readouterr().out
    assert "word vectors: builtin, 256" in shown
    assert "pools of 32 distinct meanings" in shown
    files = EvaluatorFiles.find("tiny", folder, str(tmp_path))
    embedder = CoEmbedder.load(files, torch.device("cpu"))
    assert embedder.width == 6
    data = open_dataset("tiny", "val", str(folder))
    torch.testing.assert_close(embedder.stats.std[4:-4], data.stats.std[4:-4])
    report = read_json(tmp_path / "real_figures.json")
    assert 0 <= report["R-Precision top 1"] <= report["R-Precision top 3"] <= 1
    movements = load_tensors(tmp_path / "Decomp_SP001_SM001_H512" / "model" / "latest.tar")
    matched = load_tensors(finest(tmp_path))["movement_encoder"]
    assert all(torch.equal(v, movements["movement_enc"][k]) for k, v in matched.items())
    first = read_metrics(tmp_path / "Decomp_SP001_SM001_H512")
    assert {"recons", "sparsity", "smoothness"} <= set(first[0])
    assert {"positive", "negative"} <= set(read_metrics(tmp_path / "text_mot_match")[0])


@pytest.mark.parametrize("stopped", [("2", "1"), ("4", "2")])
def test_a_resumed_run_equals_an_unbroken_one(folder: Path, tmp_path: Path, stopped) -> None:
    """Stopped in the first stage (its last step comes later), or in the second."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    often = ("--val_interval", "2", "--save_interval", "1")
    train(folder, whole, "--movement_steps", "4", "--num_steps", "4", *often)
    movement, matching = stopped
    train(folder, parts, "--movement_steps", movement, "--num_steps", matching, *often)
    if movement == "2":  # as if it had been stopped before the second stage
        (parts / "text_mot_match" / "resume.pt").unlink()
        (parts / "text_mot_match" / "metrics.jsonl").unlink()
    train(folder, parts, "--movement_steps", "4", "--num_steps", "4", *often, "--resume")
    ours, theirs = (Evaluators.load(finest(run)).state_dict() for run in (parts, whole))
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert read_json(parts / "real_figures.json") == read_json(whole / "real_figures.json")


def test_a_signal_in_the_first_stage_stops_both(
    folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    step = MovementTask.step

    def interrupted(self, batch, number, rng):
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, number, rng)

    stages = ("--movement_steps", "3", "--num_steps", "2", "--val_interval", "9")
    train(folder, tmp_path / "whole", *stages)
    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="143"):
        patched.setattr(MovementTask, "step", interrupted)
        train(folder, tmp_path / "parts", *stages)
    assert not (tmp_path / "parts" / "text_mot_match").exists()
    args = (tmp_path / "parts" / "args.json").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        train(folder, tmp_path / "parts", *stages, "--resume", "--text_hidden", "9")
    assert "--text_hidden 8 -> 9" in capsys.readouterr().err
    assert (tmp_path / "parts" / "args.json").read_bytes() == args
    train(folder, tmp_path / "parts", *stages, "--resume")
    ours, theirs = (
        Evaluators.load(finest(tmp_path / run)).state_dict() for run in ("parts", "whole")
    )
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_glove_is_used_and_stored_where_it_is_given(folder: Path, tmp_path: Path, capsys) -> None:
    glove = write_glove(tmp_path / "words", width=9)
    short = ("--movement_steps", "1", "--num_steps", "1", "--glove_dir", str(glove))
    train(folder, tmp_path / "run", *short)
    assert f"word vectors: {glove}" in capsys.readouterr().out
    assert read_json(tmp_path / "run" / "args.json")["vectors_from"] == str(glove)
    state = load_tensors(finest(tmp_path / "run"))
    assert state["text_encoder"]["pos_emb.weight"].shape == (9, 15)
    assert WordVectorizer.load(tmp_path / "run" / "glove").vectors.shape[1] == 9


def test_training_learns_to_tell_motions_apart(folder: Path, tmp_path: Path) -> None:
    wide = ("--movement_hidden", "32", "--movement", "32", "--text_hidden", "32")
    wide += ("--motion_hidden", "32", "--embedding", "16", "--lr", "3e-3")
    train(folder, tmp_path, "--movement_steps", "60", "--num_steps", "80", *wide)
    embedder = CoEmbedder.load(
        EvaluatorFiles.find("tiny", folder, str(tmp_path)), torch.device("cpu")
    )
    data = open_dataset("tiny", "train", str(folder), random_items=False)
    data.stats = embedder.stats
    figures = real_figures(embedder, data, seed=0)
    assert figures["R-Precision top 3"] > 0.25  # chance is 0.09


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--window", "22"], "--window 22 must be a multiple of 4"),
        (["--glove_dir", "nowhere"], "has no our_vab_data.npy"),
        (["--batch_size", "999"], "--batch_size 999 x 1 processes exceeds"),
        (["--movement_batch_size", "999999"], "--movement_batch_size 999999 exceeds"),
        (["--data_dir", "nowhere"], "folder nowhere does not exist"),
    ],
)
def test_bad_input_is_told_in_one_line(
    folder: Path, tmp_path: Path, capsys, changes: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        train(folder, tmp_path / "run", *changes)
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
