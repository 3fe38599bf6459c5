"""Pictures of the command: GenEval's folders, seeds, LoRA, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from model.image.load import assemble, with_new_lora
from model.image.lora import DenoiserLoraOptions
from sample.pictures import CAPTIONS as CAPTIONS_WIDTH
from sample.pictures import GAP
from tests.model.image.families import family
from tests.model.image.tiny import CAPTIONS, SIZE, disturb, tiny_generator, tiny_pipeline
from tests.train.scripts import contents, refused, run_main
from utils.extras import extra

pytest.importorskip("diffusers")
pytest.importorskip("peft")
Image = pytest.importorskip("PIL.Image")
SCRIPT = "sample.generate_images"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A pipeline, a LoRA that changes nothing yet, and one that does."""
    root = tmp_path_factory.mktemp("models")
    tiny_pipeline().save_pretrained(root / "pipeline")
    generator = tiny_generator()
    generator.save(root / "new", 0, None, {})
    disturb(generator, 0.5)
    generator.save(root / "tuned", 1, None, {})
    return root


def arguments(place: Path, out: Path, *changes: str) -> list[str]:
    model = ["--model_path", str(place / "pipeline"), "--sampling_steps", "2"]
    return [*model, "--num_samples", "2", "--device", "cpu", "--output_dir", str(out), *changes]


def generated(place: Path, out: Path, *changes: str) -> dict[str, bytes]:
    run_main(SCRIPT, arguments(place, out, *changes))
    return contents(out)


def test_folders_are_those_of_geneval(place: Path, tmp_path: Path) -> None:
    records = [{"tag": "colors", "prompt": text, "include": [{"count": 1}]} for text in CAPTIONS]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps(record) for record in records))
    made = generated(place, tmp_path / "out", "--input_text", str(prompts))
    for number, record in enumerate(records):
        assert json.loads(made.pop(f"{number:05d}/metadata.jsonl")) == record
        for seed in range(2):
            picture = Image.open(tmp_path / "out" / f"{number:05d}/samples/{seed:04d}.png")
            assert picture.size == (SIZE, SIZE)
            del made[f"{number:05d}/samples/{seed:04d}.png"]
    assert list(made) == ["grid.png"]
    enlarged = 128 // SIZE * SIZE
    expected = (2 * (enlarged + GAP) + CAPTIONS_WIDTH, 4 * (enlarged + GAP) - GAP)
    assert Image.open(tmp_path / "out" / "grid.png").size == expected


def test_prompts_come_from_text_and_from_json(place: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red circle\n\n  a blue square \n")
    (tmp_path / "a.json").write_text(json.dumps(["a red circle", "a blue square"]))
    found = [
        generated(place, tmp_path / kind, "--input_text", str(tmp_path / f"a.{kind}"))
        for kind in ("txt", "json")
    ]
    found.append(generated(place, tmp_path / "out", "--prompt", "a red circle", "a blue square"))
    assert found[0] == found[1] == found[2]


def test_seeds_count_up_and_come_back(place: Path, tmp_path: Path) -> None:
    prompt = ("--prompt", *CAPTIONS)
    first = generated(place, tmp_path / "first", *prompt, "--seed", "3")
    assert generated(place, tmp_path / "again", *prompt, "--seed", "3") == first
    later = generated(place, tmp_path / "later", *prompt, "--seed", "4", "--num_samples", "1")
    assert later["00001/samples/0000.png"] == first["00001/samples/0001.png"]
    assert later["00001/samples/0000.png"] != first["00001/samples/0000.png"]


def test_the_size_of_batches_changes_no_noise(place: Path, tmp_path: Path) -> None:
    prompt = ("--prompt", *CAPTIONS)
    generated(place, tmp_path / "whole", *prompt)
    generated(place, tmp_path / "parts", *prompt, "--batch_size", "3")
    whole, parts = (np.asarray(Image.open(tmp_path / n / "grid.png")) for n in ("whole", "parts"))
    np.testing.assert_allclose(whole.astype(int), parts.astype(int), atol=1)


def test_a_lora_counts_from_its_first_step_on(place: Path, tmp_path: Path) -> None:
    prompt = ("--prompt", *CAPTIONS)
    base = generated(place, tmp_path / "base", *prompt)
    new = generated(place, tmp_path / "new", *prompt, "--lora_path", str(place / "new"))
    file = str(place / "tuned" / "lora000000001.safetensors")
    tuned = generated(place, tmp_path / "tuned", *prompt, "--lora_path", file)
    assert new == base
    assert tuned["grid.png"] != base["grid.png"]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> Path:
    """Files of prompts that are none, a LoRA of another class, a folder of another class."""
    place = tmp_path_factory.mktemp("wrong")
    other = with_new_lora(assemble(family("flux"), "cpu"), DenoiserLoraOptions(lora_rank=2), seed=0)
    other.save(place / "other", 1, None, {})
    (place / "empty.txt").write_text("\n\n")
    (place / "lines.jsonl").write_text('{"text": "a red circle"}')
    (place / "broken.jsonl").write_text("a red circle")
    (place / "number.json").write_text("7")
    (place / "unknown").mkdir()
    index = {"_class_name": "PixArtSigmaPipeline"}
    (place / "unknown" / "model_index.json").write_text(json.dumps(index))
    return place


PROMPT = "--prompt a"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give either --prompt or --input_text"),
        (f"{PROMPT} --input_text empty.txt", "give either --prompt or --input_text"),
        ("--input_text missing.txt", "missing.txt does not exist"),
        ("--input_text empty.txt", "empty.txt holds no prompt"),
        ("--input_text lines.jsonl", "lines.jsonl holds a line without a prompt ('prompt')"),
        ("--input_text broken.jsonl", "broken.jsonl holds a line without a prompt"),
        ("--input_text number.json", "number.json holds a line without a prompt"),
        (f"{PROMPT} --lora_path missing", "--lora_path missing does not exist"),
        (f"{PROMPT} --lora_path other", "--lora_path other is the LoRA of another model"),
        (f"{PROMPT} --model_path unknown", "PixArtSigmaPipeline is not one of Stable"),
        (f"{PROMPT} --model_path missing/model", "--model_path missing/model cannot be loaded"),
        (f"{PROMPT} --resolution 9", "--resolution 9 must be a multiple of 2"),
        (f"{PROMPT} --output_dir unknown", "--output_dir unknown already holds files"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    words: str, message: str, place: Path, wrong: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(wrong)
    error = refused(SCRIPT, arguments(place, Path("out"), *words.split()), capsys)
    assert message in error
    assert not Path("out").exists()


def test_gated_weights_ask_for_a_token(place: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def gated(*_, **__):
        raise OSError("403 Client Error: Cannot access gated repo")

    monkeypatch.setattr(extra("diffusers").DiffusionPipeline, "from_pretrained", gated)
    words = ("--model_path", "some/model", "--prompt", "a")
    error = refused(SCRIPT, arguments(place, tmp_path / "out", *words), capsys)
    assert "--model_path some/model is gated: accept its licence" in error


def test_a_missing_package_is_named_with_its_extra(
    place: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    error = refused(SCRIPT, arguments(place, tmp_path / "out", "--prompt", "a"), capsys)
    assert "pip install '.[images]'" in error
    assert not (tmp_path / "out").exists()
