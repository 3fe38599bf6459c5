"""The trainings of MoMask's networks: one chain on a tiny dataset, resumed runs, refusals."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data_loaders.humanml import MotionBatch
from data_loaders.skeleton import HUMANML, KIT
from model.families import load_generator
from model.momask.checkpoints import AVERAGES, load_tokens, save_tokens
from model.momask.draws import Draws
from model.momask.generator import MoMaskGenerator
from model.momask.options_file import OptionsFile
from model.momask.training import CorruptionDraws, active_layer, corrupt, token_loss
from tests.model.momask.tiny import seeded, tiny_rvq
from tests.model.tiny import tiny_stats
from tests.paths import ROOT
from tests.train.scripts import (
    LOOP,
    MOMASK_FOLDERS,
    MOMASK_SIZES,
    Workspace,
    read_metrics,
    run_main,
    same_weights,
)
from train.loop import start_run
from train.momask_options import MoMaskOptions
from train.train_momask import open_task
from utils.errors import UserError
from utils.files import load_tensors
from utils.options import parse_options


def arguments(space: Workspace, root: Path, stage: str, *changes: str) -> list[str]:
    data = ["--dataset", "tiny", "--data_dir", str(space.data), "--batch_size", "8"]
    words = [] if stage == "rvq" else ["--text_encoder_type", "builtin"]
    folder = ["--stage", stage, "--save_dir", str(root / MOMASK_FOLDERS[stage])]
    return [*data, *LOOP.split(), *MOMASK_SIZES[stage].split(), *words, *folder, *changes]


def run(space: Workspace, root: Path, stage: str, *changes: str) -> Path:
    """Train; returns the folder of the weights."""
    run_main("train.train_momask", arguments(space, root, stage, *changes))
    return root / MOMASK_FOLDERS[stage] / "model"


def open_tiny(space: Workspace, root: Path, stage: str, *changes: str):
    options = parse_options(MoMaskOptions, arguments(space, root, stage, "--overwrite", *changes))
    return open_task(options, start_run(options))


@pytest.fixture(scope="module")
def root(workspace, tmp_path_factory) -> Path:
    """All networks, trained for two steps."""
    root = tmp_path_factory.mktemp("momask")
    for stage in MOMASK_FOLDERS:
        run(workspace, root, stage)
    return root


def test_the_folders_are_a_generator(root: Path) -> None:
    generator = load_generator(root / "base", skeleton=HUMANML)
    assert isinstance(generator, MoMaskGenerator)
    condition = generator.encode_text(["a person walks", "someone waves"])
    lengths = generator.draw_lengths(condition, torch.Generator().manual_seed(0))
    samples = generator.sample(condition, generator.blank(lengths))
    assert generator.decode(samples).x.isfinite().all()
    assert OptionsFile.read(root / "base").text("vq_name") == "rvq"
    best = load_generator(root / "base" / "model" / "net_best_loss.tar")
    assert best.model.config == generator.model.config


def test_preference_tuning_moves_the_base_transformer_alone(
    workspace, root: Path, tmp_path
) -> None:
    model = ["--model_path", str(root / "base")]
    common = ["--dataset", "tiny", "--data_dir", str(workspace.data), "--device", "cpu"]
    out = ["--reward_path", str(workspace.reward), "--out", str(tmp_path / "pairs")]
    few = ["--num_candidates", "2", "--batch_size", "32", "--num_captions", "40"]
    run_main("prepare.preference_pairs", [*common, *model, *out, *few])
    methods = {
        "sopo": ["--omega", "elbo", "--mask_samples", "2", "--tau_quantile", "0.5"],
        "combined_dpo": ["--pairs_path", str(tmp_path / "pairs")],
    }
    before = load_generator(root / "base")
    for method, changes in methods.items():
        save_dir = tmp_path / method
        workspace.run("train_sopo", save_dir, *model, "--method", method, *changes)
        assert all(line["loss"] > 0 for line in read_metrics(save_dir) if "loss" in line)
        after = load_generator(save_dir)
        assert not torch.equal(before.model.cond_emb.weight, after.model.cond_emb.weight)
        for network in ("residual", "lengths"):
            pair = (getattr(g.parts, network).state_dict() for g in (before, after))
            assert all(torch.equal(a, b) for a, b in zip(*(p.values() for p in pair), strict=True))


def test_root_and_contacts_weigh_as_in_the_published_statistics(workspace, root: Path) -> None:
    found, stats = load_tokens(root / "rvq").stats, open_tiny(workspace, root, "base").data.stats
    ratio = stats.std / found.std
    assert torch.allclose(ratio[:4], torch.tensor(25.0))
    assert torch.allclose(ratio[-4:], torch.tensor(25.0))
    assert torch.allclose(ratio[4:-4], torch.tensor(1.0))


@pytest.mark.parametrize("stage", MOMASK_FOLDERS)
def test_a_resumed_run_equals_an_unbroken_one(workspace, root: Path, tmp_path, stage: str) -> None:
    for name in ("whole", "parts"):
        if stage != "rvq":
            shutil.copytree(root / "rvq", tmp_path / name / "rvq")
    average = [] if stage == "rvq" else ["--use_ema"]
    whole = run(workspace, tmp_path / "whole", stage, *average, "--num_steps", "6")
    run(workspace, tmp_path / "parts", stage, *average, "--num_steps", "3")
    parts = run(workspace, tmp_path / "parts", stage, *average, "--num_steps", "6", "--resume")
    assert same_weights(whole / "latest.tar", parts / "latest.tar")
    figures = [read_metrics(folder.parent)[-1] for folder in (whole, parts)]
    assert figures[0] == figures[1]


def test_the_averages_of_the_codebooks_are_in_the_state_and_matter(workspace, tmp_path) -> None:
    """The next step moves the codes otherwise without them: the test above can fail."""
    folder = run(workspace, tmp_path, "rvq", "--num_steps", "3")
    state = load_tensors(tmp_path / "rvq" / "resume.pt")
    stored = load_tensors(folder / "latest.tar")[AVERAGES]
    assert all(torch.equal(state["tasks"][0]["averages"][name], stored[name]) for name in stored)
    codes = []
    for known in (True, False):
        task = open_tiny(workspace, tmp_path, "rvq")
        task.module.load_state_dict(state["module"])
        if known:
            task.load_state_dict(state["tasks"][0])
        task.step(next(task.batches(0)), 3, seeded())
        codes.append(task.module.quantizer.layers[0].codebook)
    assert not torch.equal(*codes)


def test_validation_moves_no_code_and_is_the_same_twice(workspace, tmp_path) -> None:
    task = open_tiny(workspace, tmp_path, "rvq")
    task.step(next(task.batches(0)), 0, seeded())
    before = task.module.quantizer.averages()
    with torch.no_grad():
        first, second = task.validate(), task.validate()
    assert first == second
    after = task.module.quantizer.averages()
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def test_the_base_transformer_learns_hidden_ids_of_clips_padded_to_the_longest(
    workspace, root: Path
) -> None:
    """What is padding in every row is not computed, and makes no difference."""
    task = open_tiny(workspace, root, "base")
    task.module.eval()
    batch = short_batch(task)
    ids, valid = task.encode(batch)
    assert ids.shape[1] == 49
    assert valid.sum(1).max() < 49
    model, draws = task.module, Draws(seeded())
    drawn = CorruptionDraws.draw(len(ids), 49, 16, draws)
    corrupted = corrupt(ids[..., 0], valid, model.mask_id, model.pad_id, drawn)
    logits = model(corrupted.ids, task.text(batch), valid)
    expected = token_loss(logits, ids[..., 0], corrupted.chosen)
    found = task.token_loss(batch, Draws(seeded()), None)
    torch.testing.assert_close(found.loss, expected.loss)


@torch.no_grad()
def test_the_residual_transformer_learns_one_layer_of_every_row(workspace, root: Path) -> None:
    task = open_tiny(workspace, root, "residual")
    task.module.eval()
    batch = short_batch(task)
    ids, valid = task.encode(batch)
    model = task.module
    layer = active_layer(Draws(seeded()).uniform(len(ids)), 3)
    assert set(layer.tolist()) == {1, 2}
    padded = ids.masked_fill(~valid.unsqueeze(-1), model.pad_id)
    logits = model(model.history(padded, layer), layer, task.text(batch), valid)
    surprise = -logits.log_softmax(-1)
    rows, places = valid.nonzero(as_tuple=True)
    expected = surprise[rows, places, ids[rows, places, layer[rows]]].mean()
    found = task.token_loss(batch, Draws(seeded()), None)
    torch.testing.assert_close(found.loss, expected)


@torch.no_grad()
def test_the_length_estimator_learns_token_counts(workspace, root: Path) -> None:
    task = open_tiny(workspace, root, "lengths")
    task.module.eval()
    batch = next(task.batches(0))
    surprise = -task.module(task.text(batch)).log_softmax(-1)
    expected = surprise[torch.arange(len(surprise)), batch.lengths // 4].mean()
    found = task.token_loss(batch, Draws(seeded()), None)
    torch.testing.assert_close(found.loss, expected)


def test_captions_are_hidden_in_training_alone(workspace, root: Path) -> None:
    task = open_tiny(workspace, root, "base", "--cond_drop_prob", "1", "--dropout", "0")
    batch = next(task.batches(0))
    other = replace(batch, captions=list(reversed(batch.captions)))
    hidden = [task.step(b, 0, seeded()).loss.item() for b in (batch, other)]
    assert hidden[0] == hidden[1]
    task.module.eval()
    seen = [task.token_loss(b, Draws(seeded()), None).loss.item() for b in (batch, other)]
    assert seen[0] != seen[1]


def short_batch(task) -> MotionBatch:
    """A batch in which no clip is as long as the longest that the tokens are made for."""
    longest = task.tokens.longest * task.tokens.unit
    return next(b for b in task.batches(0) if int(b.lengths.max()) < longest)


WRONG = {
    "another network's option": ("base", ["--nb_code", "8"], "--nb_code is no option of --stage b"),
    "average of an RVQ": ("rvq", ["--use_ema"], "--use_ema: the codebooks"),
    "half a token": ("rvq", ["--window", "30"], "--window 30 must be a multiple of 4"),
    "window": ("rvq", ["--window", "400"], "no clip of split train has the 400 frames"),
    "batch": ("rvq", ["--batch_size", "99999"], "exceeds the"),
    "RVQ": ("base", ["--vq_name", "other"], "other/opt.txt does not exist"),
    "path of an RVQ": ("base", ["--vq_name", "../rvq"], "--vq_name ../rvq: a name, not a path"),
    "heads": ("base", ["--n_heads", "3"], "--n_heads 3 does not divide --latent_dim 16"),
}


@pytest.mark.parametrize("name", WRONG)
def test_says_what_is_wrong(workspace, root: Path, capsys, name: str) -> None:
    stage, changes, message = WRONG[name]
    with pytest.raises(SystemExit):
        run(workspace, root, stage, "--overwrite", *changes)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said


def test_folders_that_nothing_would_find_are_refused(workspace, tmp_path) -> None:
    for stage, message in (("residual", "begin with tres"), ("lengths", "length_estimator")):
        words = arguments(workspace, tmp_path, stage)
        words[words.index("--save_dir") + 1] = str(tmp_path / "mine")
        with pytest.raises(UserError, match=message):
            parse_options(MoMaskOptions, words)


def test_an_rvq_of_another_width_is_refused(workspace, tmp_path) -> None:
    save_tokens(tmp_path / "rvq", tiny_rvq(KIT.feature_dim), tiny_stats(KIT), {})
    with pytest.raises(UserError, match="encodes kit motions of 251 features, the dataset holds"):
        open_tiny(workspace, tmp_path, "base")


def test_an_rvq_that_was_trained_again_is_refused(workspace, root: Path, tmp_path) -> None:
    shutil.copytree(root, tmp_path / "momask")
    path = tmp_path / "momask" / "rvq" / "model" / "net_best_fid.tar"
    content = torch.load(path, weights_only=True)
    content["vq_model"]["quantizer.layers.0.codebook"] += 1
    torch.save(content, path)
    with pytest.raises(UserError, match="rvq has been trained again since; train this transf"):
        load_generator(tmp_path / "momask" / "base")


def test_several_processes_train_no_rvq(workspace, tmp_path, monkeypatch, capsys) -> None:
    fake = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    monkeypatch.setattr("train.train_momask.start_run", lambda options: fake)
    with pytest.raises(SystemExit):
        run(workspace, tmp_path, "rvq")
    assert "--stage rvq in 2 processes" in capsys.readouterr().err


SETTINGS = [
    path for path in sorted(ROOT.glob("configs/momask/*/*.yaml")) if path.stem in MOMASK_FOLDERS
]


@pytest.mark.parametrize("path", SETTINGS, ids=str)
def test_the_settings_are_valid(path: Path, tmp_path) -> None:
    options = parse_options(
        MoMaskOptions,
        ["--config", str(path), "--save_dir", str(tmp_path / MOMASK_FOLDERS[path.stem])],
    )
    assert options.stage == path.stem
    assert options.dataset.startswith(path.parent.name)
