"""From a scene to pixels."""

from collections.abc import Sequence

import numpy as np

from prepare.shape_world.scene import BACKGROUND, COLOURS, RESOLUTION, SIZES, Thing

SUPERSAMPLING = 4  # points per pixel and axis, so that edges are smooth


def inside(thing: Thing, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points lie in the object."""
    half = SIZES[thing.size]
    x, y = x - thing.x, y - thing.y
    if thing.shape == "circle":
        return x**2 + y**2 <= half**2
    within = (np.abs(x) <= half) & (np.abs(y) <= half)
    if thing.shape == "triangle":  # the tip is at the top
        within &= np.abs(x) <= (y + half) / 2
    return within


def soft_shape(thing: Thing, size: tuple[int, int]) -> np.ndarray:
    """Share of every pixel ``[H, W]`` that the object covers."""
    rows, columns = ((np.arange(n * SUPERSAMPLING) + 0.5) / SUPERSAMPLING for n in size)
    points = inside(thing, columns[None], rows[:, None])
    blocks = points.reshape(size[0], SUPERSAMPLING, size[1], SUPERSAMPLING)
    return blocks.mean(axis=(1, 3))


def draw(things: Sequence[Thing]) -> np.ndarray:
    """The picture ``[32, 32, 3]``, uint8."""
    picture = np.broadcast_to(np.float64(BACKGROUND), (RESOLUTION, RESOLUTION, 3)).copy()
    for thing in things:
        share = soft_shape(thing, (RESOLUTION, RESOLUTION))[..., None]
        picture += share * (np.float64(COLOURS[thing.colour]) - picture)
    return np.round(picture).astype(np.uint8)
