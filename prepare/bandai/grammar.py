"""A small grammar that puts facts, an action and a style into English captions.

A `Scene` is what is known of one clip. Its templates come in two disjoint halves, so that captions
at even and at odd places of a clip are worded differently.
"""

import re
from dataclasses import dataclass, field
from string import Formatter

import numpy as np

from data_loaders.captions import MAX_TOKENS
from data_loaders.facts import Fact

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
)
SUBJECTS = ("a person", "someone", "the person")
# How the captions of a clip state the style: behind the sentence, as its subject, before it, or not
STYLE_PLACES = ("behind", "subject", "before", "behind", "subject", "nowhere")


@dataclass(frozen=True)
class Detail:
    """A fact that a template may state in its slot, and ways to say it."""

    fact: Fact
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """What may be said of a clip.

    action names what is done, to one side where it has one; facts are stated by every template.
    Slots of templates are filled from `words`, or from `details` when the clip has that detail and
    with nothing otherwise. `{subject}` is in every template.
    """

    action: str
    family: str
    templates: tuple[tuple[str, ...], tuple[str, ...]]
    facts: tuple[Fact, ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    details: dict[str, Detail] = field(default_factory=dict)


@dataclass(frozen=True)
class Style:
    """Adverbial phrases and a subject that express a style; none for no style."""

    name: str = ""
    phrases: tuple[str, ...] = ()
    subject: str = ""


@dataclass(frozen=True)
class StatedCaption:
    """A caption and all that it states: text alone determines facts and meaning."""

    text: str
    facts: tuple[Fact, ...]
    meaning: str


def number_phrases(value: int, unit: str, before: str = "") -> tuple[str, ...]:
    """Ways to say a rounded quantity, in words and in digits: "about six seconds"."""
    word = NUMBERS[value] if value < len(NUMBERS) else str(value)
    unit = unit.removesuffix("s") if value == 1 else unit
    pairs = (("about", word), ("roughly", word), ("about", str(value)))
    return tuple(f"{before} {hedge} {number} {unit}".strip() for hedge, number in pairs)


def compose(
    scene: Scene, style: Style, rng: np.random.Generator, count: int = 6
) -> list[StatedCaption]:
    """At most `count` different captions of at most 20 words, alternating between the halves."""
    places = np.roll(STYLE_PLACES, rng.integers(len(STYLE_PLACES)))
    halves = [list(rng.permutation(half)) for half in scene.templates]
    captions: dict[str, StatedCaption] = {}
    for i in range(count):
        half = halves[i % 2]
        for _ in range(len(half)):
            half.append(half.pop(0))  # the template just tried comes last from now on
            caption = _state(half[-1], scene, style, str(places[i % len(places)]), rng)
            if len(caption.text.split()) <= MAX_TOKENS and caption.text not in captions:
                captions[caption.text] = caption
                break
    return list(captions.values())


def _state(
    template: str, scene: Scene, style: Style, place: str, rng: np.random.Generator
) -> StatedCaption:
    """Fill one template; the style goes to `place`, or is left out when it cannot."""
    slots = {name for _, name, _, _ in Formatter().parse(template) if name}
    stated = {name: detail for name, detail in scene.details.items() if name in slots}
    values = dict.fromkeys(slots, "") | scene.words
    values |= {name: str(rng.choice(detail.phrases)) for name, detail in stated.items()}
    phrases = [p for p in style.phrases if not ("slow" in p and "pace" in stated)]
    phrase = str(rng.choice(phrases)) if phrases and place in ("behind", "before") else ""
    by_subject = style.subject if place == "subject" else ""
    values["subject"] = by_subject or str(rng.choice(SUBJECTS))
    text = _tidy(template.format_map(values))
    if phrase and place == "before" and template.startswith("{subject}"):
        text = f"{phrase}, {text}"
    elif phrase:
        text = f"{text}, {phrase}"
    facts = {*scene.facts, *(detail.fact for detail in stated.values())}
    meaning = [scene.action, *sorted(f"{d.fact.kind}={d.fact.value}" for d in stated.values())]
    if phrase or by_subject:
        meaning.append(f"style={style.name}")
    ordered = tuple(sorted(facts, key=lambda fact: fact.kind))
    return StatedCaption(text, ordered, "; ".join(meaning))


def _tidy(text: str) -> str:
    """Close the gaps that empty slots leave."""
    return re.sub(r"\s+(?=,|$)", "", re.sub(r"\s+", " ", text)).strip()
