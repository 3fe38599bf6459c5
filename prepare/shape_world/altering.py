"""Captions with one fact changed: what a reward must learn to tell apart."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prepare.shape_world.captions import Caption, Phrase, known_captions
from prepare.shape_world.scene import CELLS, COLOURS, RELATIONS, SHAPES, SIZES


def altered(caption: Caption, rng: np.random.Generator) -> Caption:
    """A caption of the grammar that states something else, by one change of one fact."""
    changes = [_changed_phrase(caption, index) for index in range(len(caption.phrases))]
    options = [option for per_phrase in changes for option in per_phrase]
    if caption.cell:
        options += [replace(caption, cell=cell) for cell in CELLS if cell != caption.cell]
    if caption.relation:
        others = [name for name in RELATIONS if name != caption.relation]
        options += [replace(caption, relation=name) for name in others] * 3  # as often as the rest
    if len(caption.phrases) == 2:
        options.append(replace(caption, phrases=caption.phrases[::-1]))
    known = known_captions()
    fitting = [o for o in options if o.text in known and o.meaning != caption.meaning]
    return fitting[int(rng.integers(len(fitting)))]


def _changed_phrase(caption: Caption, index: int) -> list[Caption]:
    phrase = caption.phrases[index]
    changed = [replace(phrase, shape=s) for s in SHAPES]
    changed += [replace(phrase, colour=c) for c in COLOURS if phrase.colour]
    changed += [replace(phrase, size=s) for s in SIZES if phrase.size]
    changed += [replace(phrase, count=n) for n in range(1, 5)]
    return [_with_phrase(caption, index, p) for p in changed if p != phrase]


def _with_phrase(caption: Caption, index: int, phrase: Phrase) -> Caption:
    phrases = [*caption.phrases[:index], phrase, *caption.phrases[index + 1 :]]
    return replace(caption, phrases=tuple(phrases))


def altered_texts(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """One altered caption for each; texts outside the grammar stay as they are."""
    known = known_captions()
    return [altered(known[t], rng).text if t in known else t for t in texts]
