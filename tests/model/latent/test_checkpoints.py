"""Checkpoints of latent diffusion: known by their keys, strict, clear about what is wrong."""

import copy
import os

import pytest
import torch

from data_loaders.normalizer import Statistics
from model.latent.checkpoints import (
    UNUSED,
    LatentSettings,
    load_denoiser,
    load_vae,
    read_settings,
    read_weights,
    save_checkpoint,
)
from tests.model.latent.tiny import (
    FEATURES,
    V2,
    draw,
    text_condition,
    tiny_denoiser,
    tiny_vae,
    upstream_state,
    write_upstream,
)
from utils.errors import UserError
from utils.files import read_json

STEPS = torch.tensor([4, 7])
SETTINGS = LatentSettings()


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("layout", [{}, V2, {"guidance_dim": 8}], ids=["v1", "v2", "student"])
@torch.no_grad()
def test_networks_come_back_with_all_their_sizes(tmp_path, layout: dict) -> None:
    vae = tiny_vae(**{k: v for k, v in layout.items() if k != "guidance_dim"})
    denoiser = tiny_denoiser(**layout, text_relu="projected" not in layout)
    weights = read_weights(write_upstream(tmp_path / "x.ckpt", vae, denoiser))
    assert weights.variant == ("v2" if layout == V2 else "v1")
    settings = read_settings(weights, {})
    found = load_vae(weights, settings), load_denoiser(weights, settings)
    assert (found[0].config, found[1].config) == (vae.config, denoiser.config)
    latent = draw(2, 2, vae.config.latent_dim)
    lengths = torch.tensor([6, 3])
    assert torch.equal(found[0].decode(latent, lengths), vae.decode(latent, lengths))
    text = text_condition(2)
    assert torch.equal(found[1](latent, STEPS, text), denoiser(latent, STEPS, text))


def test_the_files_of_2023_are_known_by_an_unused_table(tmp_path) -> None:
    """They are Lightning checkpoints, with objects beside the weights."""
    vae, denoiser = tiny_vae(), tiny_denoiser()
    state = upstream_state(vae, denoiser) | {f"denoiser.{UNUSED}": draw(40, 1, 16)}
    content = {"state_dict": state, "hyper_parameters": {"collate": refusal, "lr": 1e-4}}
    torch.save(content, tmp_path / "x.ckpt")
    weights = read_weights(tmp_path / "x.ckpt")
    assert weights.variant == "mld"
    assert read_settings(weights, {}).text_encoder_type == "clip_large"
    assert set(load_denoiser(weights, SETTINGS).state_dict()) == set(denoiser.state_dict())


def test_text_of_the_transformers_width_needs_no_projection(tmp_path) -> None:
    denoiser = tiny_denoiser(text_dim=16, text_projected=False)
    weights = read_weights(write_upstream(tmp_path / "x.ckpt", tiny_vae(), denoiser))
    assert load_denoiser(weights, SETTINGS).config == denoiser.config


def test_a_first_stage_has_no_denoiser_and_a_denoiser_needs_its_vae(tmp_path) -> None:
    weights = read_weights(write_upstream(tmp_path / "vae.ckpt", tiny_vae(), None))
    assert load_vae(weights, SETTINGS).config == tiny_vae().config
    assert "without a denoiser" in refusal(load_denoiser, weights, SETTINGS)
    path = write_upstream(tmp_path / "denoiser.ckpt", None, tiny_denoiser())
    assert "no motion VAE" in refusal(read_weights, path)
    path = write_upstream(tmp_path / "both.ckpt", tiny_vae(), tiny_denoiser(**V2))
    assert "6 wide, those of the VAE 16" in refusal(load_denoiser, read_weights(path), SETTINGS)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"vae.final_layer.bias": None}, "missing: final_layer.bias"),
        ({"vae.extra": torch.zeros(1)}, "unknown: extra"),
        ({"vae.final_layer.bias": torch.zeros(3)}, "of another shape: final_layer.bias"),
        ({"vae.skel_embedding.weight": None}, "lacks skel_embedding.weight"),
        ({"controlnet.weight": torch.zeros(1)}, "it holds controlnet.weight"),
    ],
)
def test_every_key_is_consumed_or_named(tmp_path, changes: dict, problem: str) -> None:
    state = upstream_state(tiny_vae(), tiny_denoiser()) | changes
    state = {key: value for key, value in state.items() if value is not None}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    assert problem in refusal(lambda: load_vae(read_weights(tmp_path / "x.ckpt"), SETTINGS))


def test_evaluators_and_text_encoders_are_left_alone(tmp_path) -> None:
    state = upstream_state(tiny_vae(), tiny_denoiser())
    state |= {"text_encoder.weight": draw(3), "t2m_moveencoder.main.0.bias": draw(2)}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    weights = read_weights(tmp_path / "x.ckpt")
    assert set(weights.vae) == set(tiny_vae().state_dict())
    assert set(weights.denoiser) == set(tiny_denoiser().state_dict())


class Command:
    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_lightning_file_with_code_is_refused_and_not_run(tmp_path) -> None:
    content = {"state_dict": upstream_state(tiny_vae(), None), "callbacks": Command(tmp_path / "a")}
    torch.save(content, tmp_path / "x.ckpt")
    assert "carries code" in refusal(read_weights, tmp_path / "x.ckpt")
    assert not (tmp_path / "a").exists()


def test_other_files_are_refused(tmp_path) -> None:
    torch.save(copy.deepcopy(tiny_vae().state_dict()), tmp_path / "x.ckpt")
    assert "no state_dict" in refusal(read_weights, tmp_path / "x.ckpt")
    torch.save([1, 2], tmp_path / "y.ckpt")
    assert "no state_dict" in refusal(read_weights, tmp_path / "y.ckpt")
    assert "does not exist" in refusal(read_weights, tmp_path / "z.ckpt")


def test_ours_keep_what_the_weights_do_not_tell(tmp_path) -> None:
    vae, denoiser = tiny_vae(num_heads=2), tiny_denoiser(num_heads=2, dropout=0.0)
    settings = LatentSettings(
        text_encoder_type="builtin", num_heads=2, dropout=0.0, diffusion_steps=8
    )
    average = tiny_denoiser(seed=5, num_heads=2)
    stats = Statistics("dataset_stats", torch.zeros(FEATURES), torch.ones(FEATURES))
    networks = {"vae": vae, "denoiser": denoiser}
    path = save_checkpoint(tmp_path / "run", 12, networks, stats, settings, None, {"lr": 1e-4})
    assert path.name == "model000000012.pt"
    args = read_json(path.parent / "args.json")
    assert (args["family"], args["lr"]) == ("latent", 1e-4)
    weights = read_weights(path)
    assert read_settings(weights, args) == settings
    assert load_denoiser(weights, settings).config.num_heads == 2
    key = "query_pos.pe"
    assert torch.equal(weights.denoiser[key], denoiser.state_dict()[key])
    weights = read_weights(save_checkpoint(tmp_path, 13, networks, stats, settings, average))
    assert torch.equal(weights.denoiser[key], average.state_dict()[key])
    assert torch.equal(weights.vae["final_layer.bias"], vae.state_dict()["final_layer.bias"])
    first_stage = save_checkpoint(tmp_path, 14, {"vae": vae}, stats, settings)
    assert not read_weights(first_stage).denoiser
