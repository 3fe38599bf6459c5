"""What is said of models and packages that are missing or unknown."""

import json
import sys
from pathlib import Path

import pytest
import torch

from model.image.load import ImageModelOptions, load_image_generator, load_pipeline, refusal
from model.image.lora import DenoiserLoraOptions, add_lora
from model.image.pipelines import wrap
from tests.model.image.tiny import CAPTIONS, SIZE, tiny_generator, tiny_pipeline
from utils.errors import UserError

pytest.importorskip("diffusers")
pytest.importorskip("peft")


def test_a_saved_pipeline_comes_back(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path)
    options = ImageModelOptions(model_path=str(tmp_path))
    loaded = load_image_generator(options, "cpu", steps=2, guidance=3.0)
    expected = tiny_generator(lora=False)
    assert torch.equal(loaded.encode_text(CAPTIONS).tokens, expected.encode_text(CAPTIONS).tokens)
    condition, like = expected.encode_text(CAPTIONS), expected.blank(4, SIZE, SIZE)
    made = [
        g.sample(condition, like, torch.Generator().manual_seed(0)).x for g in (loaded, expected)
    ]
    assert torch.equal(*made)


def test_folders_without_a_known_pipeline_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        load_pipeline(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "PixArtSigmaPipeline"}))
    with pytest.raises(UserError, match="PixArtSigmaPipeline is not one of Stable"):
        load_pipeline(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_pipeline(str(tmp_path))
    with pytest.raises(UserError, match="object is not tuned here"):
        wrap(object())


def test_gated_weights_ask_for_a_token() -> None:
    message = refusal("some/model", OSError("401 Client Error: access to the repo is gated"))
    assert "accept its licence" in message
    assert "\n" not in message


def test_a_missing_package_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"diffusers .*pip install '\.\[images\]'"):
        load_pipeline("anything")


def test_layers_that_are_not_there_are_named() -> None:
    generator = tiny_generator(lora=False)
    with pytest.raises(UserError, match="--lora_targets nowhere"):
        add_lora(
            generator.wrapper, DenoiserLoraOptions(lora_rank=2, lora_targets=["nowhere"]), seed=0
        )
