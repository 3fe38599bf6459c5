"""A small grammar for captions of synthetic motion: what is said, in many ways, and what it states.

Verb phrases are templates in which ``<verb>`` is inflected and ``[a|b|c]`` offers alternatives, for
example ``"<raise> [the|their] left [arm|hand]"``. A `Statement` is one verb phrase with the facts
that it states; optional details add words and facts.
"""

import re
from dataclasses import dataclass

import numpy as np

from data_loaders.facts import Fact

SUBJECTS = (
    "a person", "someone", "the person", "a man", "a woman", "the figure", "a human",
)  # fmt: skip
COUNTS = {1: ("once", "one time"), 2: ("twice", "two times"), 3: ("three times",),
          4: ("four times",)}  # fmt: skip
DOUBLED = frozenset({"run", "jog", "sit", "hop", "squat", "bob", "spin", "put", "get"})


@dataclass(frozen=True)
class Detail:
    """Words that may follow a verb phrase, and the facts they state; `share` = how often said."""

    words: tuple[str, ...]
    facts: tuple[Fact, ...]
    share: float = 0.5


@dataclass(frozen=True)
class Statement:
    """What one action gives the grammar. `templates` all state `facts`; `family` is its content."""

    family: str
    templates: tuple[str, ...]
    facts: tuple[Fact, ...]
    details: tuple[Detail, ...] = ()


@dataclass(frozen=True)
class Sentence:
    text: str
    facts: tuple[Fact, ...]
    meaning: str


def third_person(verb: str) -> str:
    """``walk`` -> ``walks``, ``punch`` -> ``punches``."""
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")


def gerund(verb: str) -> str:
    """``walk`` -> ``walking``, ``raise`` -> ``raising``, ``run`` -> ``running``."""
    if verb in DOUBLED:
        return verb + verb[-1] + "ing"
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return verb + "ing"


def compose(statements: list[Statement], rng: np.random.Generator) -> Sentence:
    """One caption for one action, or for two that follow each other."""
    phrases, facts = [], []
    for statement in statements:
        words, stated = _phrase(statement, rng)
        phrases.append(words)
        facts += stated
    subject = _choose(SUBJECTS, rng)
    if len(phrases) == 1:
        text = _single(subject, phrases[0], rng)
    else:
        text = _sequence(subject, phrases, rng)
    meaning = "; ".join(sorted(f"{fact.kind}={fact.value}" for fact in facts))
    families = "+".join(statement.family for statement in statements)
    return Sentence(re.sub(r"\s+", " ", text).strip(), tuple(facts), f"{families}: {meaning}")


def _phrase(statement: Statement, rng: np.random.Generator) -> tuple[str, list[Fact]]:
    """A verb phrase with ``<verb>`` still in brackets, and the facts it states."""
    words, facts = _choose(statement.templates, rng), list(statement.facts)
    for detail in statement.details:
        if rng.random() < detail.share:
            words = f"{words} {_choose(detail.words, rng)}"
            facts += detail.facts
    return _alternatives(words, rng), facts


def _single(subject: str, phrase: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.65:
        return f"{subject} {_inflect(phrase, third_person)}"
    return f"{subject} is {_inflect(phrase, gerund)}"


def _sequence(subject: str, phrases: list[str], rng: np.random.Generator) -> str:
    first, second = phrases
    forms = (
        f"{subject} {_inflect(first, third_person)} and then {_inflect(second, third_person)}",
        f"{subject} {_inflect(first, third_person)}, then {_inflect(second, third_person)}",
        f"after {_inflect(first, gerund)}, {subject} {_inflect(second, third_person)}",
        f"{subject} {_inflect(first, third_person)} before {_inflect(second, gerund)}",
    )
    return _choose(forms, rng)


def _inflect(phrase: str, form) -> str:
    return re.sub(r"<(\w+)>", lambda match: form(match.group(1)), phrase)


def _alternatives(text: str, rng: np.random.Generator) -> str:
    return re.sub(r"\[([^]]*)\]", lambda match: _choose(match.group(1).split("|"), rng), text)


def _choose(options, rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
