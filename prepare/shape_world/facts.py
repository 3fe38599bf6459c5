"""What a caption states, fact by fact, and whether objects that were read from pixels fulfil it."""

from collections.abc import Sequence
from dataclasses import dataclass

from prepare.shape_world.captions import Caption, Phrase
from prepare.shape_world.scene import Thing, stands

KINDS = ("shape", "colour", "size", "count", "position", "relation")


@dataclass(frozen=True)
class Fact:
    kind: str
    holds: bool


def matches(thing: Thing, phrase: Phrase) -> bool:
    """Is it one of those that the phrase speaks of?"""
    return (
        thing.shape == phrase.shape
        and phrase.colour in ("", thing.colour)
        and phrase.size in ("", thing.size)
    )


def judge(caption: Caption, things: Sequence[Thing]) -> list[Fact]:
    """Every fact of the caption. ``shape``: enough objects have it; ``colour``, ``size``: enough of
    these have that too; ``count``: the picture has as many objects as the caption, and no more."""
    facts = []
    for phrase in caption.phrases:
        shaped = [t for t in things if t.shape == phrase.shape]
        facts.append(Fact("shape", len(shaped) >= phrase.count))
        if phrase.colour:
            coloured = sum(t.colour == phrase.colour for t in shaped)
            facts.append(Fact("colour", coloured >= phrase.count))
        if phrase.size:
            facts.append(Fact("size", sum(t.size == phrase.size for t in shaped) >= phrase.count))
    facts.append(Fact("count", len(things) == sum(p.count for p in caption.phrases)))
    found = [[t for t in things if matches(t, phrase)] for phrase in caption.phrases]
    if caption.cell:
        facts.append(Fact("position", any(t.cell == caption.cell for t in found[0])))
    if caption.relation:
        firsts, seconds = found
        holds = any(stands(a, caption.relation, b) for a in firsts for b in seconds)
        facts.append(Fact("relation", holds))
    return facts
