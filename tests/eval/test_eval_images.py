"""Figures of pictures: oracle, rewards, wins and distance, and the table of several models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.picture_figures import PictureFigures, embeddings_of, judge_pictures
from prepare.shape_world.dataset import captions_of_split, scene_for
from prepare.shape_world.drawing import draw
from tests.data_loaders.squares import write_squares
from tests.model.image.tiny import (
    CAPTIONS,
    REDNESS,
    SIZE,
    Redness,
    Speechless,
    disturb,
    pictures,
    tiny_generator,
    tiny_pipeline,
)
from tests.train.scripts import refused, run_main
from utils.files import read_json

pytest.importorskip("diffusers")
pytest.importorskip("peft")
Image = pytest.importorskip("PIL.Image")
SCRIPT = "eval.eval_images"


def judged(made: Tensor, real: np.ndarray | None = None, first=None) -> PictureFigures:
    return judge_pictures(made, CAPTIONS, Redness(), Redness(), real, first)


def test_wins_are_counted_picture_by_picture() -> None:
    base = judged(pictures())
    assert base.win_rate is None
    assert base.reward == base.judge == pytest.approx(np.mean(base.judge_scores))
    same = judged(pictures(), first=base.judge_scores)
    assert same.win_rate == 0.5, "ties are half a win"
    redder = pictures().clone()
    redder[:3, 0] += 0.1
    redder[3:, 0] -= 0.1
    assert judged(redder, first=base.judge_scores).win_rate == 0.75


def test_real_pictures_have_no_distance_to_themselves() -> None:
    real = embeddings_of(Redness(), pictures())
    assert judged(pictures(), real).distance == pytest.approx(0, abs=1e-9)
    far = judged(pictures() + 0.2, real).distance
    assert far == pytest.approx(3 * 0.2**2, rel=1e-4), "three channels, moved alike"


def test_the_oracle_reads_what_the_captions_say() -> None:
    rng = np.random.default_rng(0)
    asked = captions_of_split("test")[::40]
    drawn = np.stack([draw(scene_for(caption, rng)) for caption in asked])
    made = torch.tensor(drawn).permute(0, 3, 1, 2) / 255
    texts = [caption.text for caption in asked]
    figures = judge_pictures(made, texts, None, None, None, None)
    assert set(figures.facts.values()) == {1}
    assert figures.reward is figures.judge is figures.distance is None
    empty = judge_pictures(torch.ones_like(made), texts, None, None, None, None)
    assert empty.facts["all"] == 0
    unknown = judge_pictures(made, ["a wall"] * len(made), None, None, None, None)
    assert not unknown.facts


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A pipeline, a LoRA that changes nothing yet, two that do, and data with a test split."""
    root = tmp_path_factory.mktemp("models")
    tiny_pipeline().save_pretrained(root / "pipeline")
    generator = tiny_generator()
    for name in ("new", "seed1", "seed2"):
        generator.save(root / name, 0, None, {})
        disturb(generator, 0.5)
    (root / "data" / "test").mkdir(parents=True)
    write_squares(root / "data" / "test", SIZE, losers=0)
    return root


def arguments(place: Path, out: Path, *changes: str) -> list[str]:
    return [
        *("--data_dir", str(place / "data"), "--model_path", str(place / "pipeline")),
        *("--sampling_steps", "2", "--device", "cpu", "--reward", REDNESS, "--judge", REDNESS),
        *("--output", str(out), *changes),
    ]


def test_models_are_compared_from_the_same_noise(place: Path, tmp_path: Path, capsys) -> None:
    loras = ["none", *(str(place / name) for name in ("new", "seed1", "seed2"))]
    words = ["--names", "base", "new", "tuned", "tuned", "--lora_path", *loras]
    run_main(SCRIPT, arguments(place, tmp_path / "out" / "table.json", *words))
    rows = read_json(tmp_path / "out" / "table.json")["rows"]
    assert [len(rows[name]) for name in ("base", "new", "tuned")] == [1, 1, 2]
    (base,), (new,), tuned = rows.values()
    assert new == base | {"win_rate": 0.5}, "a LoRA without a step is the base"
    assert len(base["judge_scores"]) == 8
    assert base["distance"] > 0
    assert len({base["reward"], *(seed["reward"] for seed in tuned)}) == 3
    lines = {
        line.split("|")[1].strip(): line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("|")
    }
    assert "±" in lines["tuned"], "seeds of one method share a row"
    assert "±" not in lines["base"]
    grid = Image.open(tmp_path / "out" / "table.png")
    assert grid.width < grid.height, "three columns, eight rows"


def test_prompts_of_files_need_no_pictures(place: Path, tmp_path: Path) -> None:
    """The oracle reads those of its own grammar; a judge that embeds nothing gives no distance."""
    texts = [caption.text for caption in captions_of_split("test")[:4]]
    (tmp_path / "prompts.json").write_text(json.dumps(texts))
    words = ["--data_dir", "missing", "--prompts", str(tmp_path / "prompts.json")]
    run_main(SCRIPT, arguments(place, tmp_path / "a.json", *words, "--resolution", "32"))
    (base,) = read_json(tmp_path / "a.json")["rows"]["none"]
    assert 0 <= base["facts"]["all"] < 1
    assert base["distance"] is None


def speechless(device: torch.device) -> Speechless:
    return Speechless()


def test_a_judge_without_embedding_gives_no_distance(place: Path, tmp_path: Path) -> None:
    words = ["--judge", "tests.eval.test_eval_images:speechless"]
    run_main(SCRIPT, arguments(place, tmp_path / "a.json", *words))
    (base,) = read_json(tmp_path / "a.json")["rows"]["none"]
    assert base["distance"] is None
    assert base["judge"] == base["reward"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--names a b", "--names holds 2 names for 1 models"),
        ("--lora_path none missing", "--lora_path missing does not exist"),
        ("--lora_path none data", "--lora_path data holds no pytorch_lora_weights.safetensors"),
        ("--split validation", "data has no validation split"),
        ("--prompts missing.txt", "missing.txt does not exist"),
        ("--judge hps", "of the judge: --reward hps is unknown"),
        ("--reward clip --reward_path data", "--reward clip: data cannot be loaded"),
        ("--model_path data", "data has no model_index.json"),
    ],
)
def test_mistakes_are_told_before_anything_is_sampled(
    words: str, message: str, place: Path, monkeypatch, capsys
) -> None:
    def sampled(*_):
        pytest.fail("a model was sampled")

    monkeypatch.setattr("eval.eval_images.generate_pictures", sampled)
    monkeypatch.chdir(place)
    assert message in refused(SCRIPT, arguments(place, Path("a.json"), *words.split()), capsys)
    assert not Path("a.json").exists()
