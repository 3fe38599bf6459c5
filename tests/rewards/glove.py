"""A small vocabulary in the files of upstream's ``glove`` folder, for tests."""

import pickle
from pathlib import Path

import numpy as np

from rewards.word_vectors import ROWS_FILE, VECTORS_FILE, WORDS_FILE

VOCABULARY = ("sos", "eos", "unk", "a", "person", "walk", "run", "left", "to", "the")


def write_glove(folder: Path, width: int = 300, seed: int = 0) -> Path:
    """Rows are stored in reverse order of the words, so that the two are not the same by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {word: row for row, word in enumerate(reversed(VOCABULARY))}
    np.save(folder / VECTORS_FILE, np.random.default_rng(seed).normal(size=(len(rows), width)))
    (folder / WORDS_FILE).write_bytes(pickle.dumps(list(VOCABULARY)))
    (folder / ROWS_FILE).write_bytes(pickle.dumps(rows))
    return folder
