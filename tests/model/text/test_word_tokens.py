"""The trained word vectors of the package wordllama: what they mean, and their absence."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from model.text import word_tokens
from model.text.encoders import build_text_encoder
from model.text.word_tokens import TABLE_FILE, TOKENIZER_FILE, WordLlamaEncoder, bind
from utils.errors import UserError

WORDS = ("walks", "runs", "left", "[UNK]")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package folder with four words, each a multiple of ones."""
    for file in (TABLE_FILE, TOKENIZER_FILE):
        (tmp_path / file).parent.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / TOKENIZER_FILE))
    table = torch.arange(1.0, 5.0)[:, None].expand(4, 256).contiguous().half()
    save_file({"embedding.weight": table}, tmp_path / TABLE_FILE)
    monkeypatch.setattr(word_tokens, "_package_folder", lambda: tmp_path)
    return tmp_path


def test_tokens_are_the_table_s_rows_bound_to_their_neighbours(package) -> None:
    encoder = build_text_encoder("wordllama")
    found = encoder.encode(["runs left", "walks"])
    assert found.mask.tolist() == [[True, True], [True, False]]
    rows = np.stack([np.full(256, value, np.float32) for value in (2, 3)])
    torch.testing.assert_close(found.tokens[0], torch.from_numpy(bind(rows)))
    np.testing.assert_array_equal(encoder.word("runs left"), np.full(256, 2.5))


def test_neighbours_and_places_show_in_a_token() -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)
    tokens = bind(vectors)
    other = bind(vectors[[1, 0, 2]])
    assert tokens.shape == (3, 256)
    assert np.abs(tokens[2] - other[2]).max() > 0.1  # its neighbour is another one
    assert np.abs(tokens[0] - other[1]).max() > 0.1


def test_without_the_package_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setattr(word_tokens, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[wordllama\]'"):
        WordLlamaEncoder()


@pytest.mark.skipif(find_spec("wordllama") is None, reason="the package wordllama is not installed")
def test_like_words_have_like_vectors() -> None:
    encoder = WordLlamaEncoder()

    def likeness(a: str, b: str) -> float:
        x, y = encoder.word(a), encoder.word(b)
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    assert likeness("walks", "strolls") > likeness("walks", "banana") + 0.1
    found = encoder.encode(["a person walks", ""])
    assert found.tokens.shape[2] == encoder.width == 256
    assert found.mask.sum(dim=1).tolist()[1] == 1  # the start token
