"""Checkpoints: round trips, which weights are taken, and what is refused."""

import copy
import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.skeleton import HUMANML, KIT
from model.checkpoint_files import read_model_args, step_of
from model.families import load_generator
from model.mdm.checkpoints import config_from_args, load_weights
from model.mdm.network import MDMConfig
from tests.model.tiny import random_condition, random_motion, tiny_generator, tiny_mdm
from utils.errors import UserError
from utils.files import load_tensors, save_tensors, write_json

LENGTHS = torch.tensor([8, 6])
CAPTIONS = ["a person walks", "a person waves"]


@pytest.fixture
def path(tmp_path) -> Path:
    return tiny_generator(KIT).save(tmp_path / "run", 12, None, {"dataset": "kit"})


def change_args(path: Path, **changes) -> None:
    args = json.loads((path.parent / "args.json").read_text())
    write_json(path.parent / "args.json", {**args, **changes})


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_generator(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("skeleton", [HUMANML, KIT], ids=lambda s: s.name)
@pytest.mark.parametrize(
    "layout",
    [{}, {"arch": "trans_dec", "emb_trans_dec": True}, {"arch": "gru"}, {"unconstrained": True}],
    ids=["encoder", "decoder", "gru", "unconstrained"],
)
def test_a_saved_generator_samples_the_same_motion(tmp_path, skeleton, layout) -> None:
    changes = {"noise_schedule": "linear", "diffusion_steps": 25, "sigma_small": False}
    generator = tiny_generator(skeleton, **changes, **layout)
    loaded = load_generator(generator.save(tmp_path, 3, None, {}))
    assert loaded.skeleton == skeleton
    assert not loaded.model.training
    motions = [
        g.stats.denormalize(
            g.draw(g.encode_text(CAPTIONS), LENGTHS, torch.Generator().manual_seed(0))
        )
        for g in (generator, loaded)
    ]
    assert torch.equal(*motions)


def test_upstreams_file_names_and_provenance(path: Path) -> None:
    assert path.name == "model000000012.pt"
    assert step_of(path) == 12
    assert sorted(p.name for p in path.parent.iterdir()) == ["args.json", path.name, "stats.npz"]
    args = read_model_args(path)
    assert args["dataset"] == "kit"
    assert args["latent_dim"] == 16
    assert args["provenance"]["torch"] == version("torch")
    with pytest.raises(UserError, match="expected a name like"):
        step_of(Path("last.pt"))


def test_averaged_weights_are_preferred_where_args_say_so(tmp_path) -> None:
    generator = tiny_generator(KIT)
    average = copy.deepcopy(generator.model)
    torch.nn.init.constant_(average.output_process.poseFinal.bias, 7.0)
    path = generator.save(tmp_path, 1, average, {})
    assert set(load_tensors(path)) == {"model", "model_avg"}
    assert torch.all(load_generator(path).model.output_process.poseFinal.bias == 7.0)
    change_args(path, use_ema=False)
    plain = load_generator(path).model.output_process.poseFinal.bias
    assert torch.equal(plain, generator.model.output_process.poseFinal.bias)


def test_positional_tables_of_another_length_are_ignored(path: Path) -> None:
    state = load_tensors(path)
    tables = {key for key in state if key.endswith(".pe")}
    assert len(tables) == 2
    save_tensors(path, {**state, **{key: torch.zeros(7, 1, 16) for key in tables}})
    model = load_generator(path).model
    assert model.sequence_pos_encoder.pe.shape == (200, 1, 16)
    save_tensors(path, {k: v for k, v in state.items() if k not in tables})
    load_generator(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"latent_dim": 32}, "of another shape"),
        ({"layers": 3}, "missing: seqTransEncoder.layers.2"),
        ({"layers": 1}, "unknown: seqTransEncoder.layers.1"),
        ({"arch": "trans_dec"}, "missing: seqTransDecoder"),
    ],
)
def test_another_architecture_is_told_in_one_line(path: Path, changes: dict, reason: str) -> None:
    change_args(path, **changes)
    message = refusal(path)
    assert "another architecture" in message
    assert reason in message


def test_loading_changes_nothing_when_it_is_refused(path: Path) -> None:
    model = tiny_mdm(layers=3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match="another architecture"):
        load_weights(model, path)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_missing_and_damaged_files_are_told_in_one_line(path: Path, tmp_path) -> None:
    assert "does not exist" in refusal(tmp_path / "model000000001.pt")
    path.write_bytes(path.read_bytes()[:200])
    assert str(path) in refusal(path)
    save_tensors(path, [torch.zeros(10_000)])
    assert "no dictionary" in refusal(path)
    (path.parent / "args.json").unlink()
    assert "needs the args.json" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"PK broken", b"text"])
def test_damaged_statistics_are_named(path: Path, content: bytes) -> None:
    (path.parent / "stats.npz").write_bytes(content)
    assert "stats.npz is damaged" in refusal(path)


def test_options_that_an_old_file_lacks_keep_their_defaults() -> None:
    with pytest.warns(UserWarning, match=r"lacks .*mask_frames"):
        config = config_from_args({"arch": "trans_dec", "latent_dim": 64, "lambda_vel": 0.0})
    assert config == MDMConfig(arch="trans_dec", latent_dim=64)


def test_a_complete_file_gives_no_warning(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config_from_args(read_model_args(path))


def test_the_oldest_name_of_an_unconstrained_model(path: Path) -> None:
    change_args(path, cond_mode="no_cond")
    assert read_model_args(path)["unconstrained"] is True


def test_statistics_come_from_the_dataset_where_the_checkpoint_has_none(
    path: Path, tmp_path
) -> None:
    expected = load_generator(path).stats
    (path.parent / "stats.npz").unlink()
    change_args(path, dataset="absent")
    assert "dataset absent" in refusal(path)
    change_args(path, dataset="kit")
    data = tmp_path / "data"
    data.mkdir()
    expected.save(data)
    found = load_generator(path, data_dir=str(data)).stats
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.std, expected.std)


def test_word_pieces_need_the_decoder(path: Path) -> None:
    change_args(path, text_encoder_type="bert")
    assert "needs --arch trans_dec" in refusal(path)


def test_weights_load_into_a_bare_network(tmp_path) -> None:
    source, target = tiny_mdm(), tiny_mdm()
    torch.nn.init.zeros_(target.output_process.poseFinal.weight)
    save_tensors(tmp_path / "model.pt", source.state_dict())
    load_weights(target, tmp_path / "model.pt")
    x, condition = random_motion(1, 6, 5), random_condition([1])
    t = torch.tensor([2])
    assert torch.equal(source(x, t, condition), target(x, t, condition))


RIGHT = {("num_heads", "2"), ("dataset", 0)}  # as a YAML file may have it; not needed here
WRONG = {
    "latent_dim": ("wide", None, [], {}, True, 10**9, 17, 0.5, float("inf")),
    "layers": ("many", 10**9, 250, -1, [2]),
    "num_heads": (3, 0, "2"),
    "dropout": ("half", float("nan"), -1, []),
    "arch": (None, 3, ["gru"], "trans"),
    "diffusion_steps": (10**9, 1, {}),
    "pos_embed_max_len": (10**9, "x"),
    "mask_frames": ("maybe", 2, []),
    "text_encoder_type": (3, [], "word2vec"),
    "noise_schedule": (None, "sigmoid"),
    "dataset": (0,),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_options_of_another_type_are_told_or_taken(path: Path, name: str, value) -> None:
    change_args(path, **{name: value})
    if [name, value] in map(list, RIGHT):
        load_generator(path)
        return
    message = refusal(path)
    assert "args.json" in message or path.name in message


@pytest.mark.parametrize("content", ["0", "[]", "null", '"x"'])
def test_records_that_are_no_object_are_told(path: Path, content: str) -> None:
    for record in ("args.json", "best.json"):
        whole = path.parent / record
        before = whole.read_text() if whole.exists() else '{"path": "model000000012.pt"}'
        whole.write_text(content)
        with pytest.raises(UserError, match=f"{record} must hold a JSON object"):
            load_generator(path.parent)
        whole.write_text(before)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["mean", "std"])
def test_statistics_that_normalise_nothing_are_refused(path: Path, where: str, value) -> None:
    with np.load(path.parent / "stats.npz") as file:
        arrays = dict(file)
    arrays[where][3] = value
    np.savez(path.parent / "stats.npz", **arrays)
    if where == "mean" and np.isfinite(value):
        load_generator(path)
    else:
        assert "stats.npz" in refusal(path)
