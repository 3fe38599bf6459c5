"""The lookup gives what embedding every batch of the loader would give, with less work."""

import numpy as np
import pytest
import torch

from data_loaders.humanml import MotionDataset, make_loader, open_dataset
from data_loaders.normalizer import Statistics
from eval.split_embeddings import SplitEmbeddings
from rewards.co_embedding import CoEmbedder, Evaluators
from rewards.word_vectors import WordVectorizer
from tests.data_loaders.datasets import caption_line, write_dataset
from tests.rewards.evaluator_files import TINY
from tests.rewards.glove import VOCABULARY


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MotionDataset:
    """Clips of 40 to 63 frames, and one whose caption is of a part of it."""
    rng = np.random.default_rng(0)
    lengths = {f"{i:06d}": int(rng.integers(40, 64)) for i in range(66)} | {"part": 150}
    captions = {"part": caption_line("a man runs", 1.0, 4.0)}
    folder = write_dataset(tmp_path_factory.mktemp("data") / "HumanML3D", lengths, captions)
    return open_dataset("humanml", "test", str(folder))


@pytest.fixture(scope="module")
def embedder() -> CoEmbedder:
    torch.manual_seed(0)
    stats = Statistics("s", torch.full((263,), 30_000.0), torch.full((263,), 20_000.0))
    rng = np.random.default_rng(1)
    rows = {word: row for row, word in enumerate(VOCABULARY)}
    vectorizer = WordVectorizer(rng.normal(size=(len(rows), TINY.word)), rows)
    return CoEmbedder(Evaluators(TINY).eval(), stats, vectorizer, torch.device("cpu"))


@pytest.mark.parametrize("walk", [0, 1, 5])
def test_walks_equal_embedding_the_loader_s_batches(
    data: MotionDataset, embedder: CoEmbedder, walk: int
) -> None:
    found = SplitEmbeddings(data, embedder).walk(7, walk)
    batches = make_loader(data, 32, shuffle=True, seed=7, epoch=walk, drop_last=True, pad_to=196)
    texts, motions = [], []
    for batch in batches:
        texts.append(embedder.embed_texts(batch.tokens))
        motions.append(embedder.embed_motions(batch.normalized(embedder.stats), batch.lengths))
    np.testing.assert_allclose(found.texts, torch.cat(texts).numpy(), atol=1e-6)
    np.testing.assert_allclose(found.motions, torch.cat(motions).numpy(), atol=1e-6)
    assert np.unique(found.motions.round(5), axis=0).shape[0] > 50  # not all the same


class CountingEmbedder:
    """Keeps every motion and text that it is asked for."""

    stats = Statistics("s", torch.zeros(263), torch.ones(263))

    def __init__(self) -> None:
        self.motions: list[tuple[float, int]] = []
        self.texts: list[tuple[str, ...]] = []

    def embed_texts(self, tokens: list[tuple[str, ...]]) -> torch.Tensor:
        self.texts += tokens
        return torch.zeros(len(tokens), 1)

    def embed_motions(self, motions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        assert all((m[n:] == 0).all() for m, n in zip(motions, lengths.tolist(), strict=True))
        self.motions += zip(motions[:, 0, 0].tolist(), lengths.tolist(), strict=True)
        return lengths.float().unsqueeze(1)


def test_every_text_and_every_crop_is_embedded_once(data: MotionDataset) -> None:
    counter = CountingEmbedder()
    split = SplitEmbeddings(data, counter)
    for walk in range(6):
        found = split.walk(3, walk)
        lengths = torch.cat([b.lengths for b in split.pools(3, walk)])
        assert (found.motions[:, 0] == lengths.numpy()).all()
    assert len(counter.texts) == len(set(counter.texts))
    assert len(counter.motions) == len(set(counter.motions))


def test_meanings_are_left_to_datasets_that_know_them(data: MotionDataset) -> None:
    assert SplitEmbeddings(data, CountingEmbedder()).walk(0, 0).meanings is None
