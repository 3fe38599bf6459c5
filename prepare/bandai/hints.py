"""Phrases of styles, and sentences of rare actions, from a table."""

from pathlib import Path

from prepare.bandai.grammar import Style
from prepare.tables import read_rows
from utils.errors import UserError

SAME_STYLE = {"old": "elderly", "tired": "exhausted", "masculinity": "masculine"}
OF_STEPS = ("step", "stride", "held in front of the chest")  # style phrases of gaits alone


class Hints:
    """Phrases of the hints table by kind and label. Raises UserError for a table without any."""

    def __init__(self, path: str | Path) -> None:
        self.phrases: dict[tuple[str, str], list[str]] = {}
        for _, row in read_rows(path, "--hints", ("kind", "label", "text")):
            self.phrases.setdefault((row["kind"], row["label"]), []).append(row["text"])
        if not self.phrases:
            raise UserError(f"--hints {path} holds no phrase")

    def sentences(self, content: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sentences of an action as templates, in two halves. Raises UserError without any."""
        texts = self.phrases.get(("content", content), [])
        templates = [_with_subject_slot(text) for text in texts]
        if len(templates) < 2:
            raise UserError(f"--hints has fewer than two sentences of the content {content!r}")
        return tuple(templates[::2]), tuple(templates[1::2])

    def style(self, label: str, gait: bool, slow: bool) -> Style:
        """Phrases that suit the action: of steps for gaits only, of slowness if it is slow."""
        phrases = [
            phrase
            for phrase in self.phrases.get(("style_suffix", label), [])
            if (gait or not any(words in phrase for words in OF_STEPS))
            and (slow or "slow" not in phrase)
        ]
        if label == "normal":
            return Style()  # nothing to remark
        (subject, *_) = self.phrases.get(("style_subject", label), [""])
        return Style(SAME_STYLE.get(label, label), tuple(phrases), subject)


def _with_subject_slot(sentence: str) -> str:
    for subject in ("a person", "someone", "the person"):
        if sentence.startswith(subject):
            return "{subject}" + sentence.removeprefix(subject)
    return "{subject} " + sentence
