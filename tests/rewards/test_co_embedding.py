"""The evaluators' networks, and how their files are found and checked."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewards.co_embedding import (
    CoEmbedder,
    EvaluatorFiles,
    Evaluators,
    EvaluatorSizes,
    MovementConvDecoder,
)
from rewards.word_vectors import CLASSES, Sentences
from tests.rewards.evaluator_files import MEAN, TINY, checkpoint, write_evaluators, write_statistics
from tests.rewards.glove import write_glove
from utils.errors import UserError
from utils.files import save_tensors

LENGTHS = torch.tensor([20, 48, 39, 48, 4])


@pytest.fixture
def evaluators() -> Evaluators:
    torch.manual_seed(0)
    return Evaluators(TINY).eval()


def motions(count: int = len(LENGTHS), frames: int = 48) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, frames, TINY.features, generator=rng)


def sentences() -> Sentences:
    rng = torch.Generator().manual_seed(2)
    words = torch.randn(4, 22, TINY.word, generator=rng)
    classes = torch.eye(len(CLASSES))[torch.randint(len(CLASSES), (4, 22), generator=rng)]
    return Sentences(words, classes, torch.tensor([5, 22, 2, 22]))


@torch.no_grad()
def test_texts_keep_their_order_and_are_independent(evaluators: Evaluators) -> None:
    batch = sentences()
    together = evaluators.embed_texts(batch)
    for i in range(4):
        row = slice(i, i + 1)
        alone = Sentences(batch.words[row], batch.classes[row], batch.lengths[row])
        torch.testing.assert_close(evaluators.embed_texts(alone)[0], together[i])


@torch.no_grad()
def test_motions_keep_their_order_and_are_independent(evaluators: Evaluators) -> None:
    batch = motions()
    together = evaluators.embed_motions(batch, LENGTHS)
    for i in range(len(LENGTHS)):
        alone = evaluators.embed_motions(batch[i : i + 1], LENGTHS[i : i + 1])
        torch.testing.assert_close(alone[0], together[i])


@torch.no_grad()
def test_words_after_the_sentence_do_not_matter(evaluators: Evaluators) -> None:
    batch = sentences()
    words = batch.words.clone()
    words[0, 5:] = 9.0
    changed = evaluators.embed_texts(Sentences(words, batch.classes, batch.lengths))
    torch.testing.assert_close(changed, evaluators.embed_texts(batch))


@torch.no_grad()
def test_contacts_are_not_seen(evaluators: Evaluators) -> None:
    batch = motions()
    changed = batch.clone()
    changed[..., -4:] += 7.0
    before = evaluators.embed_motions(batch, LENGTHS)
    torch.testing.assert_close(evaluators.embed_motions(changed, LENGTHS), before)
    changed[..., -5] += 7.0
    assert not torch.allclose(evaluators.embed_motions(changed, LENGTHS), before)


@pytest.mark.parametrize(("after", "seen"), [(0, True), (2, True), (3, False)])
@torch.no_grad()
def test_three_frames_after_the_length_are_read(
    evaluators: Evaluators, after: int, seen: bool
) -> None:
    batch, length = motions(1), torch.tensor([20])
    changed = batch.clone()
    changed[:, 20 + after] += 5.0
    same = torch.allclose(
        evaluators.embed_motions(batch, length), evaluators.embed_motions(changed, length)
    )
    assert same != seen


@torch.no_grad()
def test_lengths_count_whole_movements(evaluators: Evaluators) -> None:
    batch = motions(1)
    embed = evaluators.embed_motions
    torch.testing.assert_close(embed(batch, torch.tensor([39])), embed(batch, torch.tensor([36])))
    assert not torch.allclose(embed(batch, torch.tensor([40])), embed(batch, torch.tensor([36])))


@pytest.mark.parametrize("features", [263, 251])
def test_checkpoints_load_with_the_widths_of_their_tensors(tmp_path: Path, features: int) -> None:
    sizes = EvaluatorSizes(features, 8, 6, 10, 7, 9, 4)
    torch.manual_seed(3)
    saved = Evaluators(sizes).eval()
    save_tensors(tmp_path / "finest.tar", checkpoint(saved))
    loaded = Evaluators.load(tmp_path / "finest.tar")
    assert loaded.sizes == sizes
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    batch = motions()[..., :features]
    torch.testing.assert_close(
        loaded.embed_motions(batch, LENGTHS), saved.embed_motions(batch, LENGTHS).detach()
    )


@pytest.mark.parametrize("damage", ["no text encoder", "extra key", "missing key", "other shape"])
def test_other_networks_are_refused(tmp_path: Path, evaluators: Evaluators, damage: str) -> None:
    state = checkpoint(evaluators)
    movement = state["movement_encoder"]
    if damage == "no text encoder":
        del state["text_encoder"]
    elif damage == "extra key":
        movement["main.6.weight"] = torch.zeros(1)
    elif damage == "missing key":
        del movement["out_net.bias"]
    else:
        movement["out_net.bias"] = torch.zeros(99)
    save_tensors(tmp_path / "finest.tar", state)
    with pytest.raises(UserError, match=r"finest\.tar"):
        Evaluators.load(tmp_path / "finest.tar")


def test_networks_in_a_file_without_code_are_found_and_read(tmp_path: Path) -> None:
    folder, glove = write_evaluators(tmp_path / "t2m"), write_glove(tmp_path / "glove")
    original = folder / "text_mot_match" / "model" / "finest.tar"
    saved = Evaluators.load(original)
    save_file(saved.state_dict(), original.with_suffix(".safetensors"))
    original.unlink()
    files = EvaluatorFiles.find("humanml", tmp_path, str(folder), str(glove))
    loaded = Evaluators.load(files.checkpoint)
    assert loaded.sizes == saved.sizes
    assert torch.equal(
        loaded.embed_motions(motions(), LENGTHS), saved.embed_motions(motions(), LENGTHS)
    )


def test_everything_missing_is_told_in_one_line(tmp_path: Path) -> None:
    data = tmp_path / "dataset" / "HumanML3D"
    with pytest.raises(UserError) as caught:
        EvaluatorFiles.find("humanml", data, str(tmp_path / "t2m"), str(tmp_path / "glove"))
    message = str(caught.value)
    assert "\n" not in message
    for name in (
        "t2m/text_mot_match/model/finest.tar",
        "t2m/Comp_v6_KLD01/meta/std.npy",
        "glove/our_vab_idx.pkl",
    ):
        assert str(tmp_path / name) in message
    assert str(tmp_path / "dataset" / "t2m_mean.npy") in message


def test_statistics_beside_the_dataset_serve_as_mdm_distributes_them(tmp_path: Path) -> None:
    folder, glove = write_evaluators(tmp_path / "t2m"), write_glove(tmp_path / "glove")
    own = folder / "Comp_v6_KLD005" / "meta" / "mean.npy"
    data = tmp_path / "dataset" / "HumanML3D"
    write_statistics(tmp_path / "dataset", "t2m_", TINY.features)
    assert EvaluatorFiles.find("humanml", data, str(folder), str(glove)).mean == own
    own.unlink()
    found = EvaluatorFiles.find("humanml", data, str(folder), str(glove))
    assert found.mean == tmp_path / "dataset" / "t2m_mean.npy"
    assert found.std == tmp_path / "dataset" / "t2m_std.npy"


def test_other_datasets_need_evaluators_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--evaluator_dir"):
        EvaluatorFiles.find("synthetic", tmp_path / "synthetic")


def test_embedder_refuses_files_of_other_widths(tmp_path: Path) -> None:
    folder, glove = write_evaluators(tmp_path / "t2m"), tmp_path / "glove"
    device = torch.device("cpu")
    files = EvaluatorFiles.find("humanml", tmp_path, str(folder), str(write_glove(glove, width=9)))
    with pytest.raises(UserError, match="vectors of 9 numbers"):
        CoEmbedder.load(files, device)
    write_glove(glove, width=TINY.word)
    embedder = CoEmbedder.load(files, device)
    assert embedder.embed_texts([("walk/VERB",), ()]).shape == (2, TINY.embedding)
    assert (embedder.stats.mean == MEAN).all()
    write_statistics(files.mean.parent, "", 251)
    with pytest.raises(UserError, match="251 features"):
        CoEmbedder.load(files, device)


def test_the_sizes_are_the_published_ones() -> None:
    assert EvaluatorSizes() == EvaluatorSizes(263, 512, 512, 300, 512, 1024, 512)


def test_the_decoder_gives_back_four_frames_per_movement() -> None:
    decoder = MovementConvDecoder(features=9, hidden=8, latent=6)
    assert decoder(torch.randn(2, 5, 6)).shape == (2, 20, 9)


def test_published_datasets_need_no_folder_and_word_vectors_have_an_order(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the evaluation lacks"):
        EvaluatorFiles.find("humanml", tmp_path / "data")
    folder = write_evaluators(tmp_path / "t2m")
    other, own = write_glove(tmp_path / "other"), write_glove(folder / "glove")
    assert EvaluatorFiles.find("humanml", tmp_path, str(folder)).glove == own
    found = EvaluatorFiles.find("humanml", tmp_path, str(folder), str(other))
    assert found.glove == other
    assert len(found.digest()) == 16
