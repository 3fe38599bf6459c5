"""Exported checkpoints: the same model from one file, and nothing half-written."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data_loaders.skeleton import KIT
from model import single_file
from model.checkpoint_files import read_model_args, step_of
from model.export import Options, export
from model.families import load_generator
from model.latent.assembly import read_vae
from model.mdm.checkpoints import read_weights
from tests.model.latent.test_generator import tiny_mld
from tests.model.latent.tiny import tiny_denoiser, tiny_vae, write_upstream
from tests.model.tiny import tiny_generator, tiny_stats
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.options import parse_options


@pytest.fixture
def path(tmp_path) -> Path:
    """A checkpoint with averaged weights that differ from the last ones."""
    generator = tiny_generator(KIT)
    average = copy.deepcopy(generator.model)
    torch.nn.init.constant_(average.output_process.poseFinal.bias, 7.0)
    args = {"dataset": "kit", "lr": 1e-4}
    return generator.save(tmp_path / "run", 12, average, args)


def run(path: Path, *arguments: str) -> Path:
    return export(parse_options(Options, ["--model_path", str(path), *arguments]))


def bias(path: Path) -> torch.Tensor:
    return load_generator(path).model.output_process.poseFinal.bias


def sample(path: Path) -> torch.Tensor:
    generator = load_generator(path)
    condition = generator.encode_text(["a person walks"])
    noise = torch.Generator().manual_seed(0)
    motion = generator.draw(condition, torch.tensor([8]), noise)
    return generator.stats.denormalize(motion)


def test_one_file_holds_the_whole_model(path: Path, tmp_path) -> None:
    moved = tmp_path / "elsewhere" / "model000000012.safetensors"
    moved.parent.mkdir()
    shutil.move(run(path), moved)
    expected, state = read_weights(path), read_weights(moved)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
    assert read_model_args(moved) == read_json(path.parent / "args.json")
    assert torch.equal(sample(moved), sample(path))
    stats, original = load_generator(moved).stats, load_generator(path).stats
    assert torch.equal(stats.mean, original.mean)
    assert torch.equal(stats.std, original.std)
    assert step_of(moved) == 12


def test_averaged_weights_are_the_choice_of_args_unless_told(path: Path, tmp_path) -> None:
    last = run(path, "--use_ema", "false", "--output", str(tmp_path / "last.safetensors"))
    assert torch.all(bias(run(path)) == 7.0)
    assert not torch.any(bias(last) == 7.0)
    args = read_json(path.parent / "args.json")
    write_json(path.parent / "args.json", {**args, "use_ema": False})
    assert not torch.any(bias(run(path, "--overwrite")) == 7.0)


def test_averages_that_are_not_there_are_an_error(tmp_path) -> None:
    path = tiny_generator(KIT).save(tmp_path, 1, None, {})
    with pytest.raises(UserError, match="holds no averaged weights"):
        run(path, "--use_ema")


def test_an_existing_file_is_kept_without_overwrite(path: Path) -> None:
    output = path.with_suffix(".safetensors")
    output.write_bytes(b"mine")
    with pytest.raises(UserError, match="add --overwrite"):
        run(path)
    assert output.read_bytes() == b"mine"
    assert torch.all(bias(run(path, "--overwrite")) == 7.0)


def test_a_failed_write_leaves_the_old_file_and_no_other(path: Path, monkeypatch) -> None:
    output = run(path)
    before, names = output.read_bytes(), sorted(path.parent.iterdir())

    def fail(tensors, file, metadata) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(single_file, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        run(path, "--overwrite")
    assert output.read_bytes() == before
    assert sorted(path.parent.iterdir()) == names


def test_a_checkpoint_that_does_not_fit_its_arguments_is_not_exported(path: Path) -> None:
    args = read_json(path.parent / "args.json")
    write_json(path.parent / "args.json", {**args, "layers": 3})
    with pytest.raises(UserError, match="another architecture"):
        run(path)
    assert not path.with_suffix(".safetensors").exists()


def test_statistics_of_an_upstream_checkpoint_come_from_its_dataset(path: Path, tmp_path) -> None:
    stats = load_generator(path).stats
    (path.parent / "stats.npz").unlink()
    data = tmp_path / "data"
    data.mkdir()
    stats.save(data)
    assert torch.equal(load_generator(run(path, "--data_dir", str(data))).stats.std, stats.std)


def test_other_files_are_refused_in_one_line(path: Path, tmp_path) -> None:
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        run(path, "--output", str(tmp_path / "model.pt"))
    exported = run(path)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.ones(1)}, foreign)
    with pytest.raises(UserError, match=r"lacks the arguments .* model.export"):
        load_generator(foreign)
    foreign.write_bytes(exported.read_bytes()[:500])
    with pytest.raises(UserError, match=r"not a readable \.safetensors file"):
        load_generator(foreign)
    with pytest.raises(UserError, match="does not exist"):
        load_generator(tmp_path / "absent.safetensors")


def test_a_latent_model_is_exported_with_both_networks(tmp_path) -> None:
    generator = tiny_mld()
    average = copy.deepcopy(generator.model)
    torch.nn.init.constant_(average.encoder.norm.bias, 7.0)
    path = generator.save(tmp_path / "run", 12, average, {"dataset": "kit"})
    for arguments, wanted in (([], average), (["--use_ema", "false"], generator.model)):
        moved = tmp_path / f"{len(arguments)}" / "model000000012.safetensors"
        moved.parent.mkdir()
        shutil.move(run(path, *arguments), moved)
        found = load_generator(moved)
        for ours, theirs in ((found.model, wanted), (found.vae, generator.vae)):
            expected = theirs.state_dict()
            assert all(torch.equal(expected[k], v) for k, v in ours.state_dict().items())
        assert found.settings == generator.settings
        assert torch.equal(found.stats.mean, generator.stats.mean)
    plain = generator.save(tmp_path / "plain", 12, None, {})
    with pytest.raises(UserError, match="holds no averaged weights"):
        run(plain, "--use_ema", "true")


def test_a_published_latent_model_needs_the_statistics_of_its_dataset(tmp_path) -> None:
    vae, model = tiny_vae(num_features=KIT.feature_dim), tiny_denoiser(text_dim=256)
    path = write_upstream(tmp_path / "mld.ckpt", vae, model)
    (tmp_path / "data").mkdir()
    tiny_stats(KIT).save(tmp_path / "data")
    exported = run(path, "--data_dir", str(tmp_path / "data"))
    args = read_model_args(exported)
    assert (args["family"], args["text_encoder_type"]) == ("latent", "sentence_t5")
    assert read_vae(exported).stats.feature_dim == KIT.feature_dim
