"""The words that a model was trained with, kept beside its weights as ``words.txt``."""

import re
from collections.abc import Iterable
from pathlib import Path

from utils.files import write_text

WORDS_FILE = "words.txt"


def words_of(captions: Iterable[str]) -> set[str]:
    """Lower-case words of letters, digits and apostrophes."""
    return {word for caption in captions for word in re.findall(r"[a-z0-9']+", caption.lower())}


def write_words(folder: Path, captions: Iterable[str]) -> None:
    """One word per line, in order; a file that is there stays."""
    if not (folder / WORDS_FILE).is_file():
        write_text(folder / WORDS_FILE, "".join(f"{word}\n" for word in sorted(words_of(captions))))


def unknown_words(folder: Path, captions: Iterable[str]) -> list[str]:
    """Words of the captions that the model of this folder was never trained with, in order.

    None are unknown where the folder does not tell.
    """
    path = folder / WORDS_FILE
    if not path.is_file():
        return []
    return sorted(words_of(captions) - set(path.read_text(encoding="utf-8").split()))
