"""GloVe vectors and word classes of caption tokens, the text input of the co-embedding evaluators.

Source: Guo et al., "Generating Diverse and Natural 3D Human Motions from Text", CVPR 2022. The
folder ``glove/`` holds ``our_vab_data.npy`` [V, 300] (rows of GloVe 6B), ``our_vab_words.pkl``
(list of words) and ``our_vab_idx.pkl`` (word -> row).
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loaders.captions import pad_sentence
from utils.errors import UserError
from utils.files import atomic_write, read_array
from utils.unpickle import DAMAGE, RefusingUnpickler

VECTORS_FILE, WORDS_FILE, ROWS_FILE = "our_vab_data.npy", "our_vab_words.pkl", "our_vab_idx.pkl"

# The order of the one-hot classes, as the published text encoder was trained with: nine universal
# part-of-speech tags, five classes of words that matter for motion, and everything else.
CLASSES = (
    "VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV",
    "Loc_VIP", "Body_VIP", "Obj_VIP", "Act_VIP", "Desc_VIP", "OTHER",
)  # fmt: skip

# Words whose class replaces the tag of the parser (Guo et al. 2022, released code).
VIP_WORDS = {
    "Loc_VIP": "left right clockwise counterclockwise anticlockwise forward back backward up down "
    "straight curve",
    "Body_VIP": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj_VIP": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act_VIP": "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop "
    "sit lift lower raise wash stand kneel stroll rub bend balance flap jog shuffle lean rotate "
    "spin spread climb",
    "Desc_VIP": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
VIP_CLASS = {word: name for name, words in VIP_WORDS.items() for word in words.split()}


@dataclass(frozen=True)
class Sentences:
    """Word vectors ``[B, 22, 300]``, one-hot classes ``[B, 22, 15]`` and lengths ``[B]``.

    A length counts ``sos`` and ``eos``; later rows are those of ``unk``.
    """

    words: Tensor
    classes: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str) -> "Sentences":
        return Sentences(self.words.to(device), self.classes.to(device), self.lengths.to(device))


class WordVectorizer:
    """Looks up ``word/POS`` tokens. vectors: ``[V, d]``; rows: word -> row, with ``unk``."""

    def __init__(self, vectors: np.ndarray, rows: dict[str, int]) -> None:
        self.vectors = torch.from_numpy(vectors.astype(np.float32))
        self.rows = rows

    @staticmethod
    def load(folder: str | Path) -> "WordVectorizer":
        """Read upstream's folder. Raises UserError when a file is missing, damaged, unsafe or does
        not fit the others."""
        folder = Path(folder)
        vectors = _read_vectors(folder / VECTORS_FILE)
        words, rows = _read_pickle(folder / WORDS_FILE), _read_pickle(folder / ROWS_FILE)
        if not isinstance(words, list) or not all(type(word) is str for word in words):
            raise UserError(f"{folder / WORDS_FILE} must hold a list of words")
        if not isinstance(rows, dict) or not all(type(row) is int for row in rows.values()):
            raise UserError(f"{folder / ROWS_FILE} must hold a dictionary of words and row numbers")
        wrong = [word for word in words if not 0 <= rows.get(word, -1) < len(vectors)]
        if wrong:
            raise UserError(
                f"{folder / ROWS_FILE} has no row of {VECTORS_FILE} for {len(wrong)} words, "
                f"such as {wrong[0]!r}; the three files are not of one release"
            )
        if "unk" not in words:
            raise UserError(
                f"{folder / WORDS_FILE} lacks the word unk, which stands for all others"
            )
        return WordVectorizer(vectors, {word: rows[word] for word in words})

    def save(self, folder: str | Path) -> None:
        """Write upstream's folder."""
        folder = Path(folder)
        with atomic_write(folder / VECTORS_FILE) as temporary:
            np.save(temporary, self.vectors.numpy())
        for name, value in ((WORDS_FILE, list(self.rows)), (ROWS_FILE, self.rows)):
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(pickle.dumps(value))

    def token(self, token: str) -> tuple[int, int]:
        """Row and class number of one ``word/POS`` token.

        A word of the VIP lists has their class, another one its tag, or OTHER for other tags. A
        word outside the vocabulary is ``unk`` with class OTHER, even one of the VIP lists.
        Raises UserError for a token that has not exactly one slash.
        """
        parts = token.split("/")
        if len(parts) != 2:
            raise UserError(f"caption token {token!r} is not of the form word/POS")
        word, tag = parts
        if word not in self.rows:
            return self.rows["unk"], CLASSES.index("OTHER")
        name = VIP_CLASS.get(word, tag)
        return self.rows[word], CLASSES.index(name if name in CLASSES else "OTHER")

    def encode(self, captions: list[tuple[str, ...]]) -> Sentences:
        """The tokens of B captions, as ``sos``, at most 20 tokens, ``eos`` and padding."""
        sentences = [pad_sentence(tokens) for tokens in captions]
        numbers = torch.tensor([[self.token(t) for t in tokens] for tokens, _ in sentences])
        classes = torch.nn.functional.one_hot(numbers[..., 1], len(CLASSES)).float()
        lengths = torch.tensor([length for _, length in sentences])
        return Sentences(self.vectors[numbers[..., 0]], classes, lengths)


def _missing(path: Path) -> UserError:
    return UserError(f"{path} does not exist; put the GloVe folder of the evaluators there")


def _read_vectors(path: Path) -> np.ndarray:
    try:
        vectors = read_array(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not a readable .npy file ({error})") from None
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise UserError(f"{path} must hold word vectors [V, 300], found shape {vectors.shape}")
    return vectors


def _read_pickle(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            return RefusingUnpickler(file).load()
    except FileNotFoundError:
        raise _missing(path) from None
    except (pickle.UnpicklingError, *DAMAGE) as error:
        raise UserError(
            f"{path} holds more than plain lists and words, or is damaged, and is not loaded "
            f"because that could run code ({error})"
        ) from None
