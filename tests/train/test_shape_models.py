"""The small models of the embedded pictures: trained, shipped with a card, tuned and judged."""

import hashlib
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.image.load import load_pipeline
from model.shipped import CARD_FILE, JUDGE_FOLDER, PICTURES, PIPELINE_FOLDER, REWARD_FOLDER
from prepare.shape_world import dataset as shapes
from tests.train.scripts import contents, read_metrics, refused, run_main
from train.model_card import data_digest
from train.ship_pictures import halved
from utils.errors import UserError
from utils.files import read_json

pytest.importorskip("diffusers")
pytest.importorskip("peft")
pytest.importorskip("PIL")
STEPS = "20"  # as many as the card tells losses of
LOOP = [
    *("--device", "cpu", "--train_platform_type", "NoPlatform", "--batch_size", "4"),
    *("--lr_schedule", "constant", "--warmup_steps", "0"),
]
SMALL = {
    "base": [
        *("--vae_channels", "8", "8", "8", "--unet_channels", "16", "16", "--text_width", "32"),
        *("--text_layers", "1", "--vae_steps", "2", "--vae_batch_size", "4", "--val_pictures", "2"),
        *("--sampling_steps", "2"),
    ],
    "reward": ["--width", "32", "--layers", "1", "--embedding", "8"],
    "judge": ["--width", "32", "--layers", "1", "--embedding", "8", "--seed", "77"],
}
SCRIPTS = {
    "base": "train.train_image_base",
    "reward": "train.train_image_reward",
    "judge": "train.train_image_reward",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data and the runs of the three models."""
    root = tmp_path_factory.mktemp("shapes")
    data = shapes.Options(out=str(root / "data"), num_train=24, num_validation=4, num_test=6)
    shapes.build(data)
    for name in SMALL:
        train(root, name, root / name, STEPS)
    return root


def train(place: Path, name: str, run: Path, steps: str, *changes: str) -> None:
    where = ["--data_dir", str(place / "data"), "--save_dir", str(run), "--num_steps", steps]
    run_main(SCRIPTS[name], [*where, *LOOP, *SMALL[name], *changes])


def shipping(place: Path, out: Path, *changes: str) -> list[str]:
    runs = [word for name in SMALL for word in (f"--{name}", str(place / name))]
    return [*runs, "--data_dir", str(place / "data"), "--out", str(out), *changes]


@pytest.fixture(scope="module")
def shipped(place: Path) -> Path:
    run_main("train.ship_pictures", shipping(place, place / "shipped"))
    return place / "shipped"


def test_training_moves_both_parts_of_the_base(place: Path) -> None:
    parts = {name: read_metrics(place / "base" / name) for name in ("vae", "denoiser")}
    for lines in parts.values():
        assert all(line["loss"] > 0 for line in lines if "loss" in line)
    assert [line["step"] for line in parts["denoiser"] if "loss" in line] == [1, 10, int(STEPS)]
    validated = [line for line in parts["denoiser"] if "val/facts" in line]
    assert all(0 <= line["val/facts"] <= 1 for line in validated)
    pipe = load_pipeline(str(place / "base" / "pipeline"))
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.unet.config.sample_size == 8, "32 pixels, halved twice"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("base", "pipeline/unet/diffusion_pytorch_model.safetensors"),
        ("base", "pipeline/vae/diffusion_pytorch_model.safetensors"),
        ("reward", "clip/model.safetensors"),
    ],
)
def test_a_run_that_goes_on_ends_as_an_unbroken_one(
    name: str, weights: str, place: Path, resumed: Path
) -> None:
    found, expected = (load_file(root / name / weights) for root in (resumed, place))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.fixture(scope="module")
def resumed(place: Path, tmp_path_factory) -> Path:
    """Half of the steps, then the others."""
    root = tmp_path_factory.mktemp("resumed")
    for name in ("base", "reward"):
        train(place, name, root / name, "10")
        train(place, name, root / name, STEPS, "--resume")
    return root


def test_the_reward_tells_captions_apart_within_its_own_words(place: Path) -> None:
    lines = [line for line in read_metrics(place / "reward") if "told_apart" in line]
    assert all(0 <= line["told_apart"] <= 1 for line in lines)
    reward, judge = (
        load_file(place / name / "clip" / "model.safetensors") for name in ("reward", "judge")
    )
    assert reward.keys() == judge.keys()
    assert not torch.equal(reward["visual_projection.weight"], judge["visual_projection.weight"])


def digest_of(data: Path) -> str:
    return data_digest(data, "*/*.png", "*/metadata.jsonl")


def test_the_card_says_how_each_was_made(place: Path, shipped: Path) -> None:
    card = read_json(shipped / CARD_FILE)
    folders = {"base": PIPELINE_FOLDER, "reward": REWARD_FOLDER, "judge": JUDGE_FOLDER}
    for name, folder in folders.items():
        model = card["models"][name]
        assert model["file"] == folder
        assert model["bytes"] == sum(map(len, contents(shipped / folder).values()))
        assert set(model["losses"]) == {"1", "10", STEPS}
        _, _, script, *words = shlex.split(model["command"])
        assert script == SCRIPTS[name]
        options = import_module(script).Options
        assert {word[2:] for word in words if word.startswith("--")} <= set(vars(options()))
    assert "--seed 77" in card["models"]["judge"]["command"]
    assert card["data"]["made_with"]["num_train"] == 24
    assert card["data"]["sha256"] == digest_of(place / "data")


def test_weights_are_halved_and_nothing_else_changes(place: Path, shipped: Path) -> None:
    pairs = [
        (place / "base" / "pipeline" / part, shipped / PIPELINE_FOLDER / part)
        for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
    ]
    pairs.append((place / "judge" / "clip" / "model", shipped / JUDGE_FOLDER / "model"))
    for before, after in pairs:
        full, half = (load_file(f"{path}.safetensors") for path in (before, after))
        assert full.keys() == half.keys()
        for key, value in half.items():
            assert value.dtype == torch.float16
            torch.testing.assert_close(value.float(), full[key], rtol=1e-3, atol=1e-6)
    with pytest.raises(UserError, match="exceeds the range of half precision"):
        halved(torch.nn.ParameterList([torch.full((1,), 1e6)]))


def test_the_data_are_known_by_every_caption(place: Path, tmp_path: Path) -> None:
    shapes.build(shapes.Options(out=str(tmp_path), num_train=24, num_validation=4, num_test=6))
    assert digest_of(tmp_path) == digest_of(place / "data")
    captions = tmp_path / "test" / "metadata.jsonl"
    captions.write_text(captions.read_text().replace("a ", "one ", 1))
    assert digest_of(tmp_path) != digest_of(place / "data")


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_the_project_has_the_models_of_its_card(name: str) -> None:
    model = read_json(PICTURES / CARD_FILE)["models"][name]
    files = [p for p in sorted((PICTURES / model["file"]).rglob("*")) if p.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    assert len(content) == model["bytes"]
    assert hashlib.sha256(content).hexdigest() == model["sha256"]


def test_what_is_tuned_and_its_reward_are_small() -> None:
    models = read_json(PICTURES / CARD_FILE)["models"]
    assert models["base"]["bytes"] + models["reward"]["bytes"] < 8 * 2**20


def test_shipped_models_are_tuned_and_judged(place: Path, shipped: Path, tmp_path: Path) -> None:
    """The commands of the demo, with fewer steps."""
    common = ["--data_dir", str(place / "data"), "--device", "cpu"]
    model = ["--model_path", str(shipped / PIPELINE_FOLDER), "--reward", "clip"]
    model += ["--reward_path", str(shipped / REWARD_FOLDER)]
    tuning = ["--save_dir", str(tmp_path / "sopo"), "--num_steps", "1", "--num_candidates", "2"]
    tuning += ["--candidate_steps", "2", "--lora_rank", "2", "--val_pictures", "2"]
    tuning += ["--probe_batches", "1", "--batch_size", "4", "--train_platform_type", "NoPlatform"]
    run_main("train.train_sopo_image", [*common, *model, *tuning])
    judging = ["--judge", "clip", "--judge_path", str(shipped / JUDGE_FOLDER)]
    judging += ["--names", "base", "sopo", "--lora_path", "none", str(tmp_path / "sopo")]
    judging += ["--sampling_steps", "2", "--output", str(tmp_path / "table.json")]
    run_main("eval.eval_images", [*common, *model, *judging])
    rows = read_json(tmp_path / "table.json")["rows"]
    for figures in (rows["base"][0], rows["sopo"][0]):
        assert {"all", "colour", "count", "shape"} <= set(figures["facts"])
        assert figures["distance"] > 0
        assert 0 <= figures["reward"] <= 100
    page = (tmp_path / "table.md").read_text()
    assert "Facts of sopo minus base" in page
    assert (tmp_path / "table.png").is_file()


def test_a_sweep_makes_its_pairs_and_one_table(
    place: Path, shipped: Path, tmp_path: Path, started, capsys
) -> None:
    common = {
        "data_dir": str(place / "data"),
        "model_path": str(shipped / PIPELINE_FOLDER),
        **{"reward": "clip", "reward_path": str(shipped / REWARD_FOLDER)},
        **{"device": "cpu", "num_steps": 1, "batch_size": 4, "num_candidates": 2, "lora_rank": 2},
        **{"candidate_steps": 2, "val_pictures": 2, "train_platform_type": "NoPlatform"},
    }
    content = {
        "save_dir": str(tmp_path / "out"),
        "script": "train.train_sopo_image",
        "seeds": [1, 2],
        "common": common,
        "rows": {"sft": {"method": "sft"}, "offline_dpo": {"method": "offline_dpo"}},
        "evaluation": {"eval_images": {"sampling_steps": 2}},
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    run_main("train.sweep", ["--config", str(file), "--jobs", "1"])
    scripts = [words[0] for words in started]
    assert scripts == ["prepare.image_pairs", *4 * ["train.train_sopo_image"], "eval.eval_images"]
    rows = read_json(tmp_path / "out" / "eval_images.json")["rows"]
    counts = {name: len(models) for name, models in rows.items()}
    assert counts == {"base": 1, "sft": 2, "offline_dpo": 2}
    page = (tmp_path / "out" / "eval_images.md").read_text()
    assert page.strip() in capsys.readouterr().out
    started.clear()
    run_main("train.sweep", ["--config", str(file), "--jobs", "1"])
    assert started == [], "all of it is finished"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--out data", "--out data already holds files"),
        ("--reward base", "base holds no clip"),
        ("--base reward", "cannot be loaded"),
    ],
)
def test_mistakes_are_told(
    words: str, message: str, place: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(place)
    arguments = shipping(Path(), tmp_path / "out", *words.split())
    assert message in refused("train.ship_pictures", arguments, capsys)
