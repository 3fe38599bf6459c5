"""Lookup rules of the word vectoriser, and files that must not be trusted."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from rewards.word_vectors import (
    CLASSES,
    ROWS_FILE,
    VECTORS_FILE,
    VIP_CLASS,
    WORDS_FILE,
    WordVectorizer,
)
from tests.rewards.glove import VOCABULARY, write_glove
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_glove(tmp_path / "glove")


def class_of(vectorizer: WordVectorizer, token: str) -> str:
    return CLASSES[vectorizer.token(token)[1]]


def test_a_word_has_the_row_of_the_index_file_not_of_the_list(folder: Path) -> None:
    vectorizer = WordVectorizer.load(folder)
    stored = np.load(folder / VECTORS_FILE)
    row, _ = vectorizer.token("sos/OTHER")
    assert row == len(VOCABULARY) - 1
    np.testing.assert_allclose(vectorizer.vectors[row], stored[-1], rtol=1e-6)


def test_vip_list_beats_the_tag_and_unknown_tags_are_other(folder: Path) -> None:
    vectorizer = WordVectorizer.load(folder)
    assert class_of(vectorizer, "left/VERB") == "Loc_VIP"
    assert class_of(vectorizer, "person/NOUN") == "NOUN"
    assert class_of(vectorizer, "a/CCONJ") == "OTHER"


def test_unknown_words_are_unk_even_in_a_vip_list(folder: Path) -> None:
    vectorizer = WordVectorizer.load(folder)
    assert "kick" in VIP_CLASS
    assert vectorizer.token("kick/VERB") == (vectorizer.rows["unk"], CLASSES.index("OTHER"))


def test_long_sentences_end_with_eos_and_short_ones_with_unk(folder: Path) -> None:
    vectorizer = WordVectorizer.load(folder)
    found = vectorizer.encode([("walk/VERB",) * 25, ("run/VERB",), ()])
    vector = {word: vectorizer.vectors[row] for word, row in vectorizer.rows.items()}
    assert found.words.shape == (3, 22, 300)
    assert found.lengths.tolist() == [22, 3, 2]
    torch.testing.assert_close(found.words[0, -1], vector["eos"])
    torch.testing.assert_close(found.words[0, -2], vector["walk"])
    torch.testing.assert_close(found.words[1, 3:], vector["unk"].expand(19, -1))
    assert found.classes.sum(-1).eq(1).all()


@pytest.mark.parametrize("token", ["walk", "and/or/CCONJ"])
def test_a_token_needs_exactly_one_slash(folder: Path, token: str) -> None:
    with pytest.raises(UserError, match="word/POS"):
        WordVectorizer.load(folder).token(token)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", [WORDS_FILE, ROWS_FILE])
def test_a_pickle_cannot_run_code(folder: Path, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "ran"
    (folder / name).write_bytes(pickle.dumps([Malicious(marker)]))
    with pytest.raises(UserError, match=name):
        WordVectorizer.load(folder)
    assert not marker.exists()


def test_pickled_vectors_are_refused(folder: Path) -> None:
    np.save(folder / VECTORS_FILE, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=VECTORS_FILE):
        WordVectorizer.load(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04", b"not a pickle", pickle.dumps({"a": 1})[:-2]]
)
def test_damaged_pickles_are_told(folder: Path, content: bytes) -> None:
    (folder / ROWS_FILE).write_bytes(content)
    with pytest.raises(UserError, match=ROWS_FILE):
        WordVectorizer.load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (WORDS_FILE, {"unk": 0}),
        (WORDS_FILE, ["unk", 3]),
        (WORDS_FILE, ["a", "walk"]),  # no unk
        (WORDS_FILE, ["unk", "waltz"]),  # a word without a row
        (ROWS_FILE, ["unk"]),
        (ROWS_FILE, dict.fromkeys(VOCABULARY, 1.0)),
        (ROWS_FILE, dict.fromkeys(VOCABULARY, len(VOCABULARY))),  # outside the vectors
    ],
)
def test_files_that_do_not_fit_together_are_refused(folder: Path, name: str, content) -> None:
    (folder / name).write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="our_vab"):
        WordVectorizer.load(folder)


@pytest.mark.parametrize("name", [VECTORS_FILE, WORDS_FILE, ROWS_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} does not exist"):
        WordVectorizer.load(folder)


def test_what_is_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    first = WordVectorizer.load(folder)
    first.save(tmp_path / "copy")
    again = WordVectorizer.load(tmp_path / "copy")
    assert torch.equal(again.vectors, first.vectors)
    assert again.rows == first.rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (WORDS_FILE, ["unk", 3], "must hold a list of words"),
        (ROWS_FILE, {"unk": 0, "walk": 1.0}, "must hold a dictionary of words and row numbers"),
    ],
)
def test_one_odd_entry_is_told(folder: Path, name: str, content, message: str) -> None:
    (folder / name).write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=message):
        WordVectorizer.load(folder)


@pytest.mark.parametrize("vectors", [np.zeros(9), np.zeros((9, 300), int)])
def test_vectors_are_rows_of_floats(folder: Path, vectors: np.ndarray) -> None:
    np.save(folder / VECTORS_FILE, vectors)
    with pytest.raises(UserError, match="must hold word vectors"):
        WordVectorizer.load(folder)
