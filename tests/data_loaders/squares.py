"""A folder of red and blue squares with captions; some have a loser of the other colour."""

import json
from pathlib import Path

from data_loaders.images.layouts import METADATA
from utils.extras import extra

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def write_squares(place: Path, size: int, count: int = 8, losers: int = 6) -> Path:
    """The colours take turns, blue first; the first `losers` rows are pairs."""
    lines = []
    for index in range(count):
        name, other = ("red", "blue") if index % 2 else ("blue", "red")
        for kind, colour in (("winner", name), ("loser", other)):
            square = extra("PIL.Image").new("RGB", (size, size), COLOURS[colour])
            square.save(place / f"{index}_{kind}.png")
        row = {"file_name": f"{index}_winner.png", "text": f"a {name} square"}
        lines.append(json.dumps(row | ({"loser": f"{index}_loser.png"} if index < losers else {})))
    (place / METADATA).write_text("\n".join(lines))
    return place
