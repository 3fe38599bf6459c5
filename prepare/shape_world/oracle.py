"""Objects read from the pixels of a picture of the shape world, by rules alone.

Every pixel is a mix of the background and one colour of the palette; connected pixels of one colour
are an object; its shape and size are those of the drawing at its centre that it resembles most. No
network is asked, so no reward can flatter it.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy import ndimage

from prepare.shape_world.captions import Caption
from prepare.shape_world.drawing import soft_shape
from prepare.shape_world.facts import Fact, judge
from prepare.shape_world.scene import BACKGROUND, COLOURS, SHAPES, SIZES, Thing

SMALLEST = 14  # pixels; what has fewer is a blot


def read_objects(picture: np.ndarray) -> list[Thing]:
    """The objects of a picture ``[H, W, 3]``, uint8 or in [0, 1], from the top left."""
    pixels = picture.astype(np.float64) * (1 if picture.dtype == np.uint8 else 255)
    things = []
    for colour, share in zip(COLOURS, shares(pixels), strict=True):
        labels, _ = ndimage.label(share > 0.5)
        for number, area in enumerate(ndimage.find_objects(labels), start=1):
            if (labels[area] == number).sum() >= SMALLEST:
                own = (labels == number) | (
                    (labels == 0) & ndimage.binary_dilation(labels == number)
                )
                things.append(_thing(np.where(own, share, 0), colour))
    return sorted(things, key=lambda thing: (thing.y, thing.x))


def shares(pixels: np.ndarray) -> np.ndarray:
    """Share ``[colours, H, W]`` of each colour in the mixes that explain ``[H, W, 3]`` best."""
    ink = np.float64(list(COLOURS.values())) - BACKGROUND
    offset = pixels - BACKGROUND
    share = np.einsum("hwc,kc->khw", offset, ink) / (ink**2).sum(axis=1)[:, None, None]
    share = share.clip(0, 1)
    residual = ((offset - share[..., None] * ink[:, None, None]) ** 2).sum(axis=-1)
    nearest = residual.argmin(axis=0)
    return np.where(nearest == np.arange(len(ink))[:, None, None], share, 0)


def _thing(share: np.ndarray, colour: str) -> Thing:
    """The object that covers the pixels ``[H, W]`` to these shares."""
    rows, columns = (np.arange(size) + 0.5 for size in share.shape)
    x, y = (share.sum(0) @ columns / share.sum(), share.sum(1) @ rows / share.sum())
    candidates = []
    for shape, size in product(SHAPES, SIZES):
        middle = y - (SIZES[size] / 3 if shape == "triangle" else 0)  # its centroid lies lower
        thing = Thing(shape, colour, size, float(x), float(middle))
        difference = soft_shape(thing, share.shape) - share
        candidates.append(((difference**2).sum(), thing))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def examine(caption: Caption, picture: np.ndarray) -> list[Fact]:
    """Every fact of the caption, and whether the picture ``[H, W, 3]`` fulfils it."""
    return judge(caption, read_objects(picture))


def mean_by_kind(pictures: Sequence[Sequence[Fact]]) -> dict[str, float]:
    """Share of the facts that hold: ``all`` kinds together, every kind that occurs, and
    ``pictures``, those of which every fact holds."""
    facts = [fact for picture in pictures for fact in picture]
    kinds = sorted({fact.kind for fact in facts})
    by_kind = {kind: [fact.holds for fact in facts if fact.kind == kind] for kind in kinds}
    return {
        "all": float(np.mean([fact.holds for fact in facts])),
        "pictures": float(np.mean([all(f.holds for f in picture) for picture in pictures])),
        **{kind: float(np.mean(holds)) for kind, holds in by_kind.items()},
    }
