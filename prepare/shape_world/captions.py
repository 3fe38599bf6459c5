"""The grammar of the picture world: every caption that it knows, and what each of them states.

The tags are those of GenEval: single_object, colors, counting, two_object, color_attr, position.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from prepare.shape_world.scene import CELLS, COLOURS, RELATIONS, SHAPES, SIZES

NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four"}
MIRRORED = {"left of": "right of", "above": "below"}
ALWAYS_SEEN = ("single_object", "colors", "two_object")  # words must be learned from something


@dataclass(frozen=True)
class Phrase:
    """A noun phrase; what is left out ("") may be anything."""

    shape: str
    colour: str = ""
    size: str = ""
    count: int = 1

    @property
    def text(self) -> str:
        words = [NUMBERS[self.count], self.size, self.colour]
        return " ".join([w for w in words if w] + [self.shape + "s" * (self.count > 1)])


@dataclass(frozen=True)
class Caption:
    """One phrase, perhaps in a quarter of the picture, or two, perhaps in a relation."""

    tag: str
    phrases: tuple[Phrase, ...]
    relation: str = ""
    cell: str = ""

    @property
    def text(self) -> str:
        if self.cell:
            return f"{self.phrases[0].text} in the {self.cell}"
        return f" {self.relation or 'and'} ".join(phrase.text for phrase in self.phrases)

    @property
    def meaning(self) -> str:
        """The same for captions that state the same in another order."""
        if self.relation in MIRRORED.values():
            opposite = next(r for r, mirrored in MIRRORED.items() if mirrored == self.relation)
            return Caption(self.tag, self.phrases[::-1], opposite).text
        if len(self.phrases) == 2 and not self.relation:
            return " and ".join(sorted(phrase.text for phrase in self.phrases))
        return self.text

    @property
    def split(self) -> str:
        """15 % of the meanings are for the test alone, 10 % for validation; fixed by a hash."""
        if self.tag in ALWAYS_SEEN:
            return "train"
        share = int.from_bytes(hashlib.sha256(self.meaning.encode()).digest()[:4], "big") / 2**32
        return "test" if share < 0.15 else "validation" if share < 0.25 else "train"


def all_captions() -> list[Caption]:
    """Every caption of the grammar, in a fixed order."""
    return list(_single()) + list(_pairs())


def _single() -> Iterator[Caption]:
    for shape in SHAPES:
        yield Caption("single_object", (Phrase(shape),))
        for colour in COLOURS:
            yield Caption("colors", (Phrase(shape, colour),))
            for cell in CELLS:
                yield Caption("position", (Phrase(shape, colour),), cell=cell)
        for count, colour, size in itertools.product(NUMBERS, ["", *COLOURS], ["", *SIZES]):
            if size or count > 1:
                tag = "counting" if count > 1 else "color_attr"
                yield Caption(tag, (Phrase(shape, colour, size, count),))


def _pairs() -> Iterator[Caption]:
    for first, second in itertools.permutations(SHAPES, 2):
        yield Caption("two_object", (Phrase(first), Phrase(second)))
    things = [Phrase(shape, colour) for shape in SHAPES for colour in COLOURS]
    for pair in itertools.permutations(things, 2):
        yield Caption("color_attr", pair)
        for relation in RELATIONS:
            yield Caption("position", pair, relation=relation)


def words() -> list[str]:
    """The vocabulary, sorted."""
    return sorted(set(re.findall(r"\w+", " ".join(caption.text for caption in all_captions()))))


@cache
def known_captions() -> dict[str, Caption]:
    """Every caption by its text."""
    return {caption.text: caption for caption in all_captions()}
