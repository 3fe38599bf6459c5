"""Token encoders that read no sentence: a vector per word or word piece, bound to its neighbours.

``builtin``: a fixed random vector per word, without any weights. ``wordllama``: 256 trained numbers
per word piece, out of the files of the package of this name (MIT), so that words of like meaning
have like vectors and nothing is downloaded. The package itself is not imported.
"""

import hashlib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from model.text.condition import Condition, pad_tokens
from utils.errors import UserError
from utils.positions import sinusoidal_table

WIDTH = 256
TABLE_FILE = "weights/l2_supercat_256.safetensors"
TOKENIZER_FILE = "tokenizers/l2_supercat_tokenizer_config.json"


def bind(vectors: np.ndarray) -> np.ndarray:
    """Tokens ``[L, E]`` of vectors ``[L, E]``: w_i + 0.5 P w_{i-1} + 0.5 P' w_{i+1} and a sinusoid
    of i, where P, P' are fixed cyclic shifts.

    Neighbours bind "left" to "arm"; the sinusoid shows the order to attention without positions.
    """
    before = np.roll(np.vstack([np.zeros_like(vectors[:1]), vectors[:-1]]), 1, axis=1)
    after = np.roll(np.vstack([vectors[1:], np.zeros_like(vectors[:1])]), 2, axis=1)
    return vectors + 0.5 * before + 0.5 * after + sinusoidal_table(*vectors.shape).numpy()


class BuiltinEncoder:
    """Weight-free: the same vectors on every machine and with every version.

    The vector of a word is standard normal, seeded by its SHA-256.
    """

    width = WIDTH
    pooled = False

    def __init__(self) -> None:
        self._vectors: dict[str, np.ndarray] = {}

    def word(self, word: str) -> np.ndarray:
        """The vector ``[256]`` of one word."""
        if word not in self._vectors:
            digest = hashlib.sha256(word.encode("utf-8")).digest()
            bits = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "little")))
            self._vectors[word] = bits.standard_normal(self.width).astype(np.float32)
        return self._vectors[word]

    def encode(self, captions: list[str]) -> Condition:
        return pad_tokens([torch.from_numpy(self._tokens(caption)) for caption in captions])

    def _tokens(self, caption: str) -> np.ndarray:
        words = ["<start>", *re.findall(r"[a-z0-9']+", caption.lower()), "<end>"]
        return bind(np.stack([self.word(word) for word in words]))


class WordLlamaEncoder:
    """The trained vectors of a caption's word pieces, the start token first."""

    width = WIDTH
    pooled = False

    def __init__(self) -> None:
        """Raises UserError where the package is not installed, or lacks the files."""
        from tokenizers import Tokenizer

        folder = _package_folder()
        self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self.table = _read_table(folder / TABLE_FILE)

    def word(self, word: str) -> np.ndarray:
        """The vector ``[256]`` of one word: the mean of its pieces."""
        return self.table[self.tokenizer.encode(word, add_special_tokens=False).ids].mean(axis=0)

    def encode(self, captions: list[str]) -> Condition:
        rows = [self.table[encoded.ids] for encoded in self.tokenizer.encode_batch(captions)]
        return pad_tokens([torch.from_numpy(bind(vectors)) for vectors in rows])


def _package_folder() -> Path:
    found = find_spec("wordllama")
    folder = Path(found.origin).parent if found and found.origin else None
    if folder is None or not all((folder / f).is_file() for f in (TABLE_FILE, TOKENIZER_FILE)):
        raise UserError(
            "--text_encoder_type wordllama reads the word vectors of the package wordllama, which "
            "is not installed or lacks them; install the extra: pip install '.[wordllama]'"
        )
    return folder


@cache
def _read_table(path: Path) -> np.ndarray:
    """``[V, 256]``, once per process."""
    return load_file(path)["embedding.weight"].float().numpy()
