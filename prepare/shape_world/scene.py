"""Scenes of the embedded picture world: what stands where, before anything is drawn."""

from dataclasses import dataclass

COLOURS = {
    "red": (214, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220),
    "yellow": (240, 210, 40), "purple": (150, 50, 190),
}  # fmt: skip
BACKGROUND = (245, 245, 245)
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 4.0, "large": 6.5}  # half of the width, in pixels
CELLS = ("top left", "top right", "bottom left", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")
RESOLUTION = 32  # pixels; one object at most in each quarter


@dataclass(frozen=True)
class Thing:
    """One object: its shape, colour, size, and centre in pixels (x to the right, y downwards)."""

    shape: str
    colour: str
    size: str
    x: float
    y: float

    @property
    def cell(self) -> str:
        """The quarter of the picture in which its centre is."""
        half = RESOLUTION / 2
        return CELLS[2 * (self.y >= half) + (self.x >= half)]


def stands(first: Thing, relation: str, second: Thing) -> bool:
    """Does `first` stand so to `second`? By their centres, further than any jitter apart."""
    across, down = second.x - first.x, second.y - first.y
    gap = RESOLUTION / 4
    return {
        "left of": across > gap,
        "right of": -across > gap,
        "above": down > gap,
        "below": -down > gap,
    }[relation]
