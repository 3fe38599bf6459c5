"""Folders in upstream's layout: what they give back, and one clear line for each that is wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.skeleton import HUMANML, KIT
from model.momask.checkpoints import (
    AVERAGES,
    BASE,
    LENGTHS,
    RESIDUAL,
    RVQ,
    load_lengths,
    load_momask,
    load_tokens,
    save_tokens,
    save_transformer,
)
from model.momask.draws import Draws
from model.momask.options_file import OptionsFile, write_options
from model.momask.transformers import BaseTransformer, ResidualTransformer, Vocabulary
from model.text.encoders import BuiltinEncoder
from tests.model.momask.tiny import tiny_rvq, tiny_transformer, write_folders
from tests.model.tiny import random_motion, tiny_stats
from utils.errors import UserError


def edit_options(folder: Path, **changes: object) -> None:
    values = {**OptionsFile.read(folder).values, **changes}
    write_options(folder, {key: value for key, value in values.items() if value != "REMOVED"})


def edit_file(path: Path, change) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_gives_back_what_was_written(tmp_path: Path) -> None:
    folder = write_folders(tmp_path)
    for path in (folder, folder / "model" / BASE.file):
        parts = load_momask(path)
        assert parts.tokens.skeleton is KIT
        assert not parts.base.training
        motion = random_motion(1, 16, KIT.feature_dim)
        expected = tiny_rvq(KIT.feature_dim)(motion).motion
        torch.testing.assert_close(parts.tokens.rvq(motion).motion, expected)
        for part, kind in ((parts.base, BaseTransformer), (parts.residual, ResidualTransformer)):
            written = tiny_transformer(kind, BuiltinEncoder.width).state_dict()
            assert all(torch.equal(v, written[k]) for k, v in part.state_dict().items())
        torch.testing.assert_close(parts.tokens.stats.mean, tiny_stats(KIT).mean)
        assert parts.lengths is not None
        assert parts.text_encoder.encode(["a walk"]).tokens.shape == (1, 1, BuiltinEncoder.width)


def test_reads_upstreams_file_names_and_older_keys(tmp_path: Path) -> None:
    folder = write_folders(tmp_path)
    for path, part in ((tmp_path / "rvq", RVQ), (folder, BASE)):
        newest, oldest = part.keys
        edit_file(path / "model" / part.file, lambda c, n=newest, o=oldest: c.update({o: c.pop(n)}))
    edit_file(tmp_path / "rvq" / "model" / RVQ.file, lambda content: content.pop(AVERAGES))
    assert load_momask(folder).base.vocabulary.codes == 12


def test_the_length_estimator_may_be_missing(tmp_path: Path) -> None:
    folder = write_folders(tmp_path)
    shutil.rmtree(tmp_path / "length_estimator")
    assert load_momask(folder).lengths is None


def test_code_averages_come_with_the_file(tmp_path: Path) -> None:
    rvq = tiny_rvq(KIT.feature_dim)
    draws = Draws(torch.Generator().manual_seed(0))
    rvq(random_motion(4, 16, KIT.feature_dim), draws)
    save_tokens(tmp_path / "rvq", rvq, tiny_stats(KIT), {})
    loaded = load_tokens(tmp_path / "rvq").rvq.quantizer.averages()
    assert loaded
    assert all(torch.equal(v, loaded[k]) for k, v in rvq.quantizer.averages().items())


ENTRIES = {
    "rvq": "nb_code code_dim num_quantizers down_t stride_t width depth dilation_growth_rate "
    "vq_act shared_codebook",
    "base": "latent_dim n_heads n_layers ff_size cond_drop_prob vq_name",
    "tres_small": "latent_dim n_heads n_layers ff_size cond_drop_prob share_weight",
}


@pytest.mark.parametrize(
    ("folder", "key"), [(folder, key) for folder, keys in ENTRIES.items() for key in keys.split()]
)
def test_names_a_missing_entry(tmp_path: Path, folder: str, key: str) -> None:
    base = write_folders(tmp_path)
    edit_options(tmp_path / folder, **{key: "REMOVED"})
    with pytest.raises(UserError, match=rf"{folder}/opt.txt lacks the entry {key};") as caught:
        load_momask(base)
    assert "\n" not in str(caught.value)


def remove_file(root: Path) -> None:
    (root / "tres_small" / "model" / RESIDUAL.file).unlink()


def narrow_statistics(root: Path) -> None:
    for name in ("mean", "std"):
        np.save(root / "rvq" / "meta" / f"{name}.npy", np.ones(HUMANML.feature_dim))


def other_tokens(kind: type, name: str, vocabulary: Vocabulary):
    def replace(root: Path) -> None:
        model = tiny_transformer(kind, BuiltinEncoder.width, vocabulary)
        save_transformer(root / name, model, "rvq", {"text_encoder_type": "builtin"})

    return replace


def second_residual(root: Path) -> None:
    shutil.copytree(root / "tres_small", root / "tres_other")


def other_name(root: Path) -> None:
    (root / "tres_small").rename(root / "residual")


def wider_lengths(root: Path) -> None:
    path = root / "length_estimator" / "model" / LENGTHS.file
    edit_file(path, lambda c: c["estimator"].update({"output.0.weight": torch.zeros(512, 7)}))


def other_skeleton(root: Path) -> None:
    save_tokens(root / "rvq", tiny_rvq(100), tiny_stats(KIT), {})
    for name in ("mean", "std"):
        np.save(root / "rvq" / "meta" / f"{name}.npy", np.ones(100))


WRONG = {
    "RVQ of another width": (
        narrow_statistics,
        r"reads motions of 251 features, the statistics in .*meta are of 263",
    ),
    "RVQ of no skeleton": (other_skeleton, "no skeleton has 100 features"),
    "base of another RVQ": (
        other_tokens(BaseTransformer, "base", Vocabulary(20, 8, 3)),
        r"latest.tar is a transformer of another RVQ: .* \[22, 8\], that of rvq would be \[14, 8\]",
    ),
    "residual of another RVQ": (
        other_tokens(ResidualTransformer, "tres_small", Vocabulary(12, 8, 4)),
        r"net_best_fid.tar is a transformer of another RVQ: .* \[4, 13, 8\].* \[3, 13, 8\]",
    ),
    "RVQ of another depth": (
        lambda root: edit_options(root / "rvq", depth=3),
        r"with the sizes of its opt.txt, does not fit \(missing: .*model.2.conv1",
    ),
    "transformer of fewer layers": (
        lambda root: edit_options(root / "base", n_layers=1),
        r"with the sizes of its opt.txt, does not fit \(unknown: ",
    ),
    "heads that do not divide": (
        lambda root: edit_options(root / "base", n_heads=5),
        "n_heads does not divide latent_dim",
    ),
    "no number": (
        lambda root: edit_options(root / "base", latent_dim="wide"),
        "latent_dim is 'wide', not a whole number up to 65536",
    ),
    "no share": (
        lambda root: edit_options(root / "base", cond_drop_prob="often"),
        "cond_drop_prob is 'often', not a number between 0 and 1",
    ),
    "no flag": (
        lambda root: edit_options(root / "tres_small", share_weight="perhaps"),
        "share_weight is 'perhaps', neither True nor False",
    ),
    "another activation": (
        lambda root: edit_options(root / "rvq", vq_act="silu"),
        "vq_act is 'silu'; only 'relu', the published value, is supported",
    ),
    "no options": (lambda root: (root / "base" / "opt.txt").unlink(), "opt.txt does not exist"),
    "missing RVQ": (lambda root: shutil.rmtree(root / "rvq"), "rvq/opt.txt does not exist"),
    "missing weights": (remove_file, "net_best_fid.tar does not exist"),
    "missing residual": (other_name, "holds 0 folders tres.* for the RVQ rvq"),
    "two residuals": (second_residual, r"2 folders .*\(tres_other, tres_small\); name one"),
    "another network": (
        lambda root: shutil.copy(
            root / "tres_small" / "model" / RESIDUAL.file, root / "base" / "model" / BASE.file
        ),
        "holds no base transformer of MoMask",
    ),
    "damaged averages": (
        lambda root: edit_file(
            root / "rvq" / "model" / RVQ.file, lambda c: c[AVERAGES].pop("layers.0.code_sum")
        ),
        "code_averages are not those of its codebooks",
    ),
    "lengths of another text": (wider_lengths, "reads text features of width 7"),
}


@pytest.mark.parametrize("name", WRONG)
def test_says_what_is_wrong_in_one_line(tmp_path: Path, name: str) -> None:
    change, message = WRONG[name]
    base = write_folders(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_momask(base)
    assert "\n" not in str(caught.value)


def test_a_residual_of_another_rvq_by_name(tmp_path: Path) -> None:
    base = write_folders(tmp_path)
    second_residual(tmp_path)
    edit_options(tmp_path / "tres_other", vq_name="another")
    assert load_momask(base).residual.vocabulary.layers == 3  # the one that fits is taken
    assert load_momask(base, residual="tres_small").residual.vocabulary.layers == 3
    with pytest.raises(UserError, match="reads the tokens of another, not those of rvq"):
        load_momask(base, residual="tres_other")
    with pytest.raises(UserError, match="tres_missing does not exist"):
        load_momask(base, residual="tres_missing")


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--model_path .*nowhere does not exist"):
        load_momask(tmp_path / "nowhere")


def test_text_features_of_another_width(tmp_path: Path) -> None:
    base = write_folders(tmp_path)
    save_transformer(
        base, tiny_transformer(BaseTransformer, 7), "rvq", {"text_encoder_type": "builtin"}
    )
    shutil.rmtree(tmp_path / "length_estimator")
    with pytest.raises(UserError, match=r"text features of width 7, the text encoder gives 256"):
        load_momask(base)


def test_no_file_of_the_length_estimator(tmp_path: Path) -> None:
    write_folders(tmp_path)
    path = tmp_path / "length_estimator" / "model" / LENGTHS.file
    edit_file(path, lambda content: content["estimator"].pop("output.11.weight"))
    with pytest.raises(UserError, match=r"finest.tar lacks output.11.weight"):
        load_lengths(tmp_path / "length_estimator", BuiltinEncoder.width)


def test_upstreams_options_are_read(tmp_path: Path) -> None:
    text = (
        "------------ Options -------------\nname: a b: c\nlr: 0.0002\nmilestones: [50, 80]\n"
        "vq_norm: None\n-------------- End ----------------\n"
    )
    (tmp_path / "opt.txt").write_text(text)
    options = OptionsFile.read(tmp_path)
    assert options.values == {
        "name": "a b: c",
        "lr": "0.0002",
        "milestones": "[50, 80]",
        "vq_norm": "None",
    }
