"""Fixed pairs of pictures: what is in them, that they come back, and that they are trained on."""

import json
from pathlib import Path

import pytest
import torch

from data_loaders.images.dataset import PictureOptions, open_pictures
from data_loaders.images.layouts import METADATA
from model.seam import Samples
from tests.data_loaders.squares import write_squares
from tests.model.image.tiny import REDNESS, SIZE, Redness, tiny_pipeline
from tests.train.image_runs import image_arguments
from tests.train.scripts import contents, read_metrics, refused, run_main

pytest.importorskip("diffusers")
pytest.importorskip("PIL")
SCRIPT = "prepare.image_pairs"
COUNT = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    tiny_pipeline().save_pretrained(root / "pipeline")
    (root / "data").mkdir()
    write_squares(root / "data", SIZE, COUNT, losers=0)
    return root


def arguments(place: Path, out: Path, *changes: str) -> list[str]:
    return [
        *("--data_dir", str(place / "data"), "--model_path", str(place / "pipeline")),
        *("--sampling_steps", "2", "--num_candidates", "3", "--batch_size", "3"),
        *("--reward", REDNESS, "--device", "cpu", "--out", str(out), *changes),
    ]


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    run_main(SCRIPT, arguments(place, place / "whole"))
    return place / "whole"


def test_the_best_and_the_worst_candidate_of_every_caption_are_kept(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / METADATA).read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"{i}_winner.png" for i in range(COUNT)]
    data = open_pictures(PictureOptions(data_dir=str(whole)), "train", SIZE)
    assert not data.bad
    assert [row.caption for row in data.rows[:2]] == ["a blue square", "a red square"]
    rewards = torch.tensor([line["rewards"] for line in lines])
    assert rewards.shape == (COUNT, 3)
    for pictures, kept in (
        (data.pixels(data.rows), rewards.amax(dim=1)),
        (data.losers(data.rows), rewards.amin(dim=1)),
    ):
        scored = Redness().score(Samples(pictures), [""] * COUNT)
        torch.testing.assert_close(scored, kept, atol=10 / 255, rtol=0)  # 8 bits per channel
    assert (rewards.amax(dim=1) > rewards.amin(dim=1)).all()


def test_the_seed_decides(place: Path, whole: Path, tmp_path: Path) -> None:
    run_main(SCRIPT, arguments(place, tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(whole)
    run_main(SCRIPT, arguments(place, tmp_path / "other", "--seed", "11"))
    assert (tmp_path / "other" / METADATA).read_text() != (whole / METADATA).read_text()


def test_offline_pairs_are_those_of_the_folder(place: Path, whole: Path, tmp_path: Path) -> None:
    words = ("--method", "offline_dpo", "--pairs_path", str(whole), "--num_steps", "1")
    common = image_arguments(place / "data", place / "pipeline", tmp_path / "run")
    run_main("train.train_sopo_image", [*common, *words])
    metrics = read_metrics(tmp_path / "run")[0]
    assert metrics["rewards/preferred_score"] > metrics["rewards/unpreferred_score"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--out data", "--out data already holds files"),
        ("--data_dir pipeline", "pipeline holds no captions"),
        ("--data_dir missing", "--data_dir missing is no folder"),
        ("--model_path data", "data has no model_index.json"),
        ("--num_candidates 1", "--num_candidates"),
        ("--reward none:here", "--reward none:here cannot be imported"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    words: str, message: str, place: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(place)
    assert message in refused(SCRIPT, arguments(place, Path("out"), *words.split()), capsys)
    assert not Path("out").exists()
