"""Caption files, sides swapped for mirrored clips, and part-of-speech tags.

A line of a caption file reads ``caption#word/POS word/POS#from#to`` with times in seconds; 0 and 0
(or nan) mean the whole clip (HumanML3D).
"""

import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_TOKENS = 20  # the evaluators read sos + 20 tokens + eos
MAX_CHARACTERS = 1000  # of a caption; text encoders read some dozens of words
MAX_SECONDS = 1e6  # of a time in a clip: 11 days


@dataclass(frozen=True)
class Caption:
    """Text, its ``word/POS`` tokens, and the part of the clip it describes, in seconds."""

    text: str
    tokens: tuple[str, ...]
    start: float = 0.0
    end: float = 0.0

    @property
    def whole_clip(self) -> bool:
        return self.start == 0.0 and self.end == 0.0


def parse_caption_line(line: str) -> Caption:
    """Raises ValueError when the line has not the four fields, or times that are no times."""
    fields = line.strip().split("#")
    if len(fields) != 4:
        raise ValueError(f"expected caption#tokens#from#to, found {len(fields)} fields")
    text, tokens = fields[0].strip(), tuple(fields[1].split())
    if not text:
        raise ValueError("the caption is empty")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"the caption is longer than {MAX_CHARACTERS} characters")
    start, end = (0.0 if math.isnan(float(t)) else float(t) for t in fields[2:])
    for time in (start, end):
        if not 0 <= time <= MAX_SECONDS:
            raise ValueError(f"{time} s is not a time in a clip")
    return Caption(text, tokens, start, end)


def format_caption_line(caption: Caption) -> str:
    tokens = " ".join(caption.tokens)
    return f"{caption.text}#{tokens}#{caption.start}#{caption.end}"


def parse_captions(text: str) -> tuple[tuple[Caption, ...], list[str]]:
    """All captions of a file's text, and what was wrong with the lines that are not among them."""
    captions, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            captions.append(parse_caption_line(line))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    return tuple(captions), problems


def read_caption_file(path: Path) -> tuple[tuple[Caption, ...], list[str]]:
    return parse_captions(path.read_text(encoding="utf-8"))


def pad_sentence(tokens: tuple[str, ...]) -> tuple[list[str], int]:
    """``sos``, at most 20 tokens, ``eos``, then ``unk`` up to 22; and the length before ``unk``."""
    sentence = ["sos/OTHER", *tokens[:MAX_TOKENS], "eos/OTHER"]
    length = len(sentence)
    return sentence + ["unk/OTHER"] * (MAX_TOKENS + 2 - length), length


SIDE_PAIRS = (
    ("left", "right"),
    ("lefts", "rights"),
    ("leftward", "rightward"),
    ("leftwards", "rightwards"),
    ("lefty", "righty"),
    ("clockwise", "counterclockwise"),
    ("clockwise", "anticlockwise"),
)
SWAPPED = dict(SIDE_PAIRS[:6]) | {b: a for a, b in SIDE_PAIRS}
COUNTER = re.compile(r"\bcounter-clockwise\b", re.IGNORECASE)
SIDE_WORD = re.compile(rf"\b({'|'.join(sorted(SWAPPED, key=len, reverse=True))})\b", re.IGNORECASE)


def swap_left_right(text: str) -> str:
    """Exchange the words for left and right (and the senses of rotation), keeping their case.

    ``right`` in a fixed phrase (``right away``, ``upright``) is swapped only where it is a word of
    its own; the captions of the field use it for the side.
    """

    def swap(match: re.Match[str]) -> str:
        word = match.group(0)
        other = SWAPPED[word.lower()]
        if word.isupper():
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    return SIDE_WORD.sub(swap, COUNTER.sub("counterclockwise", text))


# Part-of-speech tags. The classes are the universal tags that the evaluators know.


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CLOSED_CLASSES = {
    "DET": _words(
        "a an the this that these those each every both another some any no all his her "
        "their its my your"
    ),
    "PRON": _words(
        "he she it they them him himself herself itself themselves someone somebody "
        "something who which one anyone everyone"
    ),
    "ADP": _words(
        "in on at to from with without of over under above below behind before after into "
        "onto across around through towards toward along against by for up down off out "
        "between beside beneath near as like past"
    ),
    "AUX": _words(
        "is are was were be been being am has have had do does did will would can could "
        "should may might must"
    ),
    "CCONJ": _words("and or but nor"),
    "SCONJ": _words("while if because when where although then"),
    "NUM": _words("one two three four five six seven eight nine ten once twice thrice"),
    "PART": _words("not to"),
    "ADV": _words(
        "slowly quickly forward forwards backward backwards back again very still "
        "straight ahead sideways clockwise counterclockwise anticlockwise together apart "
        "away high low fast twice once then there here upwards downwards upward downward "
        "almost about roughly slightly far just too also diagonally"
    ),
    "ADJ": _words(
        "left right small big large tall short long old young happy sad angry tired quick "
        "slow wide narrow heavy light upright straight high low same other full half more "
        "several few many strong proud timid energetic elderly exhausted feminine "
        "masculine youthful"
    ),
}
NOUNS = _words(
    "person man woman child people guy lady figure boy girl thug giant performer dancer human "
    "hand hands arm arms leg legs foot feet knee knees head body chest waist hip hips shoulder "
    "shoulders face elbow wrist back side air ground floor circle step steps place time times "
    "second seconds metre metres meter meters degree degrees turn jump kick punch wave bow squat "
    "throw direction position front way pace line ball chair object room corner stance speed "
    "motion movement movements goodbye manner mood energy style spring"
)
VERBS = _words(
    "walk run jog turn jump hop squat kneel sit stand raise lift lower wave kick punch bow throw "
    "move step go bend lean swing put hold take make keep start stop rotate spin circle dash "
    "sprint march stroll stretch reach point gesture greet bring drop stay do perform pace travel "
    "shuffle crouch stoop duck straighten hurl toss pitch rise get face head begin end finish "
    "leap bounce back look follow extend crawl climb dance balance shake clap"
)


def tag_words(text: str) -> list[str]:
    """``word/POS`` tokens as HumanML3D writes them.

    Hyphens are deleted and words that are not alphabetic are dropped; nouns and verbs become their
    lemma, except the word ``left``. Tags come from spaCy's ``en_core_web_sm`` where that is
    installed, and otherwise from `fallback_tags`.
    """
    sentence = text.replace("-", "")
    parser = _spacy_parser()
    if parser is None:
        return fallback_tags(sentence)
    tokens = []
    for token in parser(sentence):
        if token.text.isalpha():
            keep = token.pos_ not in ("NOUN", "VERB") or token.text == "left"
            tokens.append(f"{token.text if keep else token.lemma_}/{token.pos_}")
    return tokens


def fallback_tags(sentence: str) -> list[str]:
    """Tags by word lists and endings, for captions of human motion; no model needed.

    Closed classes first; then, for words that can be verb or noun, the verb reading directly after
    a subject, an adverb, ``and`` or ``to``, and the noun reading after a determiner, an adjective
    or a number; then endings (-ly, -ing, -ed, -s). Numbers and punctuation are dropped.
    """
    tokens: list[str] = []
    previous = ""
    for word in re.findall(r"[A-Za-z]+", sentence):
        lemma, tag = _tag(word.lower(), previous)
        keep = tag not in ("NOUN", "VERB") or word == "left"
        tokens.append(f"{word if keep else lemma}/{tag}")
        previous = tag
    return tokens


def _tag(word: str, previous: str) -> tuple[str, str]:
    lemma = _lemma(word)
    nominal = previous in ("DET", "ADJ", "NUM")
    if word in ("back", "head", "face", "circle", "turn") and nominal:
        return lemma, "NOUN"
    if lemma in VERBS and lemma in NOUNS:
        return lemma, "NOUN" if nominal or previous == "ADP" else "VERB"
    for tag, words in CLOSED_CLASSES.items():
        if word in words:
            return word, tag
    if lemma in NOUNS:
        return lemma, "NOUN"
    if lemma in VERBS or (word.endswith(("ing", "ed")) and not nominal):
        return lemma, "VERB"
    if word.endswith("ly"):
        return word, "ADV"
    return lemma, "NOUN"


IRREGULAR = {
    "feet": "foot", "men": "man", "women": "woman", "children": "child", "people": "people",
    "knelt": "kneel", "sat": "sit", "stood": "stand", "ran": "run", "threw": "throw",
    "bent": "bend", "swung": "swing", "went": "go", "took": "take", "made": "make",
    "held": "hold", "put": "put", "does": "do", "goes": "go", "lies": "lie",
    "degrees": "degree", "knees": "knee", "paces": "pace", "faces": "face", "circles": "circle",
}  # fmt: skip


def _lemma(word: str) -> str:
    """Base form of a noun or verb by its ending."""
    known = NOUNS | VERBS
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in known and not (word.endswith("s") and word[:-1] in known):
        return word
    for ending in ("ing", "ed", "es", "s"):
        if not word.endswith(ending) or len(word) <= len(ending) + 2:
            continue
        stem = word[: -len(ending)]
        doubled = stem[:-1] if len(stem) > 2 and stem[-1] == stem[-2] else stem
        for candidate in (stem, doubled, stem + "e", stem[:-1] + "y"):
            if candidate in known:
                return candidate
        if ending == "s" and not word.endswith("ss"):
            return stem
    return word


@functools.cache
def _spacy_parser() -> Any | None:
    try:
        import spacy

        return spacy.load("en_core_web_sm")
    except (ImportError, OSError):
        return None
