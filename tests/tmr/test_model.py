"""TMR: padding, the latent distribution, and the run folder."""

import contextlib
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from model.distribution import Distribution
from model.single_file import read_single_args
from model.text.encoders import BuiltinEncoder
from tests.tmr.tiny import FEATURES, tiny_tmr
from tmr.model import BEST, LAST, PARTS, TMR
from utils.errors import UserError
from utils.files import load_tensors, read_json, save_tensors, write_json

CAPTIONS = ["a person walks", "a man raises his left arm and then kicks"]
LENGTHS = torch.tensor([5, 9])


def motions(seed: int = 1, frames: int = 9) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, frames, FEATURES, generator=rng) + 1


@torch.no_grad()
def test_latents_do_not_depend_on_padding() -> None:
    tmr, raw = tiny_tmr(), motions()
    found = tmr.encode_motions(raw, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = tmr.encode_motions(raw[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(found[row], alone[0], rtol=1e-5, atol=1e-5)
    texts = tmr.encode_texts(CAPTIONS)
    alone = torch.cat([tiny_tmr().encode_texts([caption]) for caption in CAPTIONS])
    torch.testing.assert_close(texts, alone, rtol=1e-5, atol=1e-5)


def test_normalisation_is_tmrs_own_and_zero_in_the_padding() -> None:
    tmr, raw = tiny_tmr(), motions()
    raw[0, 5:] = float("nan")
    normalised, mask = tmr.normalize(raw, LENGTHS)
    expected = (raw[0, :5] - tmr.stats.mean) / (tmr.stats.std + 1e-12)
    torch.testing.assert_close(normalised[0, :5], expected)
    assert torch.all(normalised[0, 5:] == 0)
    assert mask.sum(dim=1).tolist() == [5, 9]


def test_a_motion_of_another_width_is_refused() -> None:
    with pytest.raises(UserError, match="takes motions of 6 features, these have 7"):
        tiny_tmr().normalize(torch.zeros(1, 4, 7), torch.tensor([4]))


@torch.no_grad()
def test_decoded_motions_are_zero_in_the_padding_and_independent_of_it() -> None:
    tmr = tiny_tmr()
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(9) < LENGTHS[:, None]
    decoded = tmr.motion_decoder(z, mask)
    assert torch.all(decoded[0, 5:] == 0)
    short = tmr.motion_decoder(z[:1], mask[:1, :5])
    torch.testing.assert_close(decoded[0, :5], short[0], rtol=1e-5, atol=1e-5)


def test_samples_have_the_stated_mean_and_variance() -> None:
    noise = torch.randn(50_000, 1, generator=torch.Generator().manual_seed(0))
    normal = Distribution(torch.tensor([2.0]), torch.tensor([0.25]).log())
    sampled = normal.sample(noise)
    assert sampled.mean().item() == pytest.approx(2.0, abs=0.01)
    assert sampled.var().item() == pytest.approx(0.25, rel=0.03)
    assert torch.equal(normal.sample(noise, fact=0.0), torch.full((50_000, 1), 2.0))


@pytest.fixture
def folder(tmp_path) -> Path:
    tiny_tmr().save(tmp_path / "run")
    return tmp_path / "run"


@torch.no_grad()
def test_a_run_folder_reloads_to_the_same_numbers(folder: Path) -> None:
    tmr, loaded = tiny_tmr(), TMR.load(folder)
    assert torch.equal(
        tmr.encode_motions(motions(), LENGTHS), loaded.encode_motions(motions(), LENGTHS)
    )
    assert torch.equal(tmr.encode_texts(CAPTIONS), loaded.encode_texts(CAPTIONS))
    assert loaded.stats.eps == tmr.stats.eps
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@torch.no_grad()
def test_a_single_file_serves_as_a_run_folder(folder: Path, tmp_path) -> None:
    path = tmp_path / "tmr.safetensors"
    TMR.load(folder).save_single_file(path, torch.float32, {"seed": 7})
    tmr, loaded = tiny_tmr(), TMR.load(path)
    assert torch.equal(
        tmr.encode_motions(motions(), LENGTHS), loaded.encode_motions(motions(), LENGTHS)
    )
    assert torch.equal(tmr.encode_texts(CAPTIONS), loaded.encode_texts(CAPTIONS))
    assert loaded.stats.eps == tmr.stats.eps
    assert read_single_args(path)["training"] == {"seed": 7}
    tmr.save_single_file(path, torch.float16, {})
    rounded = TMR.load(path)
    assert rounded.motion_encoder.tokens.dtype == torch.float32
    near = rounded.encode_motions(motions(), LENGTHS)
    torch.testing.assert_close(near, tmr.encode_motions(motions(), LENGTHS), rtol=0, atol=0.01)
    assert not torch.equal(near, tmr.encode_motions(motions(), LENGTHS))


def test_the_best_weights_are_taken_where_they_exist(folder: Path) -> None:
    better = tiny_tmr(seed=1)
    better.save(folder, "best_weights")
    assert torch.equal(TMR.load(folder).motion_encoder.tokens, better.motion_encoder.tokens)


def tokens_in(folder: Path) -> set[float]:
    """The first number of the tokens of the motion encoder and of the text encoder."""
    loaded = TMR.load(folder)
    return {
        float(part.tokens.flatten()[0]) for part in (loaded.motion_encoder, loaded.text_encoder)
    }


def numbered(value: float) -> TMR:
    """A model whose parts all tell that they are of one save."""
    tmr = tiny_tmr()
    with torch.no_grad():
        for part in (tmr.motion_encoder, tmr.text_encoder):
            part.tokens.fill_(value)
    return tmr


@pytest.mark.parametrize("upstreams", [False, True])
@pytest.mark.parametrize("kill", range(1, 15))
def test_parts_are_always_of_one_save(folder: Path, monkeypatch, kill, upstreams) -> None:
    """`kill`: the rename, link or removal before which the process is killed."""
    numbered(1.0).save(folder)
    if upstreams:
        shutil.copytree(folder / "last_weights", folder / "plain")
        (folder / "last_weights").unlink()
        (folder / "plain").rename(folder / "last_weights")
    steps = iter(range(1, 100))

    def killable(function):
        def wrapped(*arguments, **further):
            if next(steps) == kill:
                raise KeyboardInterrupt
            return function(*arguments, **further)

        return wrapped

    for name in ("replace", "rename", "symlink", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, killable(getattr(os, name)))
    with contextlib.suppress(KeyboardInterrupt):
        numbered(2.0).save(folder)
    monkeypatch.undo()
    if not (upstreams and not (folder / "last_weights").exists()):
        assert tokens_in(folder) in ({1.0}, {2.0})
    numbered(3.0).save(folder)
    assert tokens_in(folder) == {3.0}
    assert sum(path.name.startswith("last_weights_") for path in folder.iterdir()) == 1


def test_weights_of_an_overwritten_model_are_not_read_with_the_new_config(folder: Path) -> None:
    numbered(1.0).save(folder, "best_weights")
    tiny_tmr(features=FEATURES + 1).save(folder)
    assert not (folder / "best_weights").exists()
    assert TMR.load(folder).stats.feature_dim == FEATURES + 1


def test_upstreams_training_checkpoint_serves_where_weights_are_missing(folder: Path) -> None:
    state = {"lr": torch.ones(1)}
    for part in PARTS:
        path = folder / "last_weights" / f"{part}.pt"
        state |= {f"{part}.{key}": value for key, value in load_tensors(path).items()}
        path.unlink()
    (folder / "last_weights").unlink()
    save_tensors(folder / "logs" / "checkpoints" / "last.ckpt", {"state_dict": state})
    assert torch.equal(TMR.load(folder).motion_encoder.tokens, tiny_tmr().motion_encoder.tokens)


def test_statistics_are_found_where_upstreams_config_names_them(folder: Path) -> None:
    stats = folder / "stats"
    stats.rename(folder.parent / "elsewhere")
    with pytest.raises(UserError, match="with its own statistics"):
        TMR.load(folder)
    config = read_json(folder / "config.json")
    config["data"]["motion_loader"]["normalizer"] = {"base_dir": "elsewhere"}
    write_json(folder / "config.json", config)
    assert torch.equal(TMR.load(folder).stats.mean, tiny_tmr().stats.mean)


def test_damaged_folders_are_told_in_one_line(folder: Path, tmp_path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(UserError) as error:
            TMR.load(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "not a TMR run folder" in refusal(tmp_path / "absent")
    tiny_tmr(features=7).save(folder, "best_weights")
    save_tensors(folder / "best_weights" / "text_encoder.pt", {"tokens": torch.zeros(2, 16)})
    assert "text_encoder does not fit" in refusal(folder)
    (folder / "best_weights" / "text_encoder.pt").unlink()
    assert "does not exist" in refusal(folder)
    for weights in ("best_weights", "last_weights"):
        (folder / weights).unlink(missing_ok=True)
    assert "neither last_weights nor" in refusal(folder)
    save_tensors(folder / "logs" / "checkpoints" / "last.ckpt", {"epoch": 3})
    assert "has no state_dict" in refusal(folder)
    write_json(folder / "config.json", {"data": {}})
    assert "lacks the entry 'model'" in refusal(folder)


def test_text_and_motion_widths_are_those_of_their_inputs() -> None:
    tmr = tiny_tmr()
    assert tmr.motion_encoder.nfeats == FEATURES
    assert tmr.text_encoder.nfeats == BuiltinEncoder.width


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_statistics_that_normalise_nothing_are_refused(folder: Path, value: float) -> None:
    std = load_tensors(folder / "stats" / "std.pt")
    std[2] = value
    save_tensors(folder / "stats" / "std.pt", std)
    with pytest.raises(UserError, match="standard deviation"):
        TMR.load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_layers", 10**9), ("num_layers", 200), ("latent_dim", 17), ("num_heads", 3)),
        *(("dropout", "x"), ("ff_size", None), ("latent_dim", [])),
    ],
)
def test_absurd_sizes_are_told_before_memory_is_taken(folder: Path, name: str, value) -> None:
    config = read_json(folder / "config.json")
    config["model"]["motion_encoder"][name] = value
    write_json(folder / "config.json", config)
    with pytest.raises(UserError, match=re.escape(str(folder))) as error:
        TMR.load(folder)
    assert "\n" not in str(error.value)


def test_weights_normalised_otherwise_go_away_with_an_overwritten_model(tmp_path: Path) -> None:
    first, other = tiny_tmr(), tiny_tmr(seed=1)
    first.save(tmp_path, LAST)
    first.save(tmp_path, BEST)
    other.save(tmp_path, BEST)
    assert (tmp_path / LAST).exists(), "another step of one training"
    other.stats.mean.add_(1)
    other.save(tmp_path, BEST)
    assert not (tmp_path / LAST).exists()


def test_the_config_says_what_upstream_reads(folder: Path) -> None:
    assert read_json(folder / "config.json")["model"]["motion_encoder"]["vae"] is True


@pytest.mark.parametrize("content", [[torch.ones(1)], {"a": torch.ones(1), "b": 3}])
def test_a_part_is_a_dictionary_of_tensors(folder: Path, content) -> None:
    save_tensors(folder / "last_weights" / "motion_encoder.pt", content)
    with pytest.raises(UserError, match="no dictionary of tensors"):
        TMR.load(folder)


def test_sizes_that_the_weights_do_not_have_build_no_network(folder: Path, monkeypatch) -> None:
    config = read_json(folder / "config.json")
    config["model"]["motion_encoder"]["num_layers"] = 200
    write_json(folder / "config.json", config)
    monkeypatch.setattr(TMR, "__init__", lambda *_: pytest.fail("a network was built"))
    with pytest.raises(UserError, match=re.escape(str(folder))):
        TMR.load(folder)
