"""Datasets of pictures with captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data_loaders.images.layouts import BadRow, Row, read_rows
from data_loaders.images.sources import Source, load_pixels, open_picture
from utils.errors import UserError
from utils.options import option

NAMED = 3  # bad rows that are named; the others are counted


@dataclass
class ResolutionOptions:
    """For every script that reads or makes pictures."""

    resolution: int = option(0, "width and height in pixels; 0 = as the model samples", minimum=0)


@dataclass
class PictureOptions(ResolutionOptions):
    data_dir: str = option(
        "dataset/shapes",
        "folder of pictures with captions: metadata.jsonl, text files, Pick-a-Pic or HPDv2",
        free="resume",
    )
    caption_column: str = option("text", "key of the caption in metadata.jsonl")
    max_pictures: int = option(0, "use the first ones of a split only; 0 = all", minimum=0)


@dataclass
class PictureDataset:
    """The usable rows of a split, and those that were left out."""

    folder: Path
    split: str
    rows: list[Row]
    bad: list[BadRow]
    resolution: int

    def __len__(self) -> int:
        return len(self.rows)

    def captions(self) -> list[str]:
        """Every caption once, in order."""
        return list(dict.fromkeys(row.caption for row in self.rows))

    def pixels(self, rows: Sequence[Row]) -> Tensor:
        """``[B, 3, H, W]`` in [0, 1]. Raises UserError for a damaged picture."""
        return torch.stack([_load(row.picture, self.resolution) for row in rows])

    def losers(self, rows: Sequence[Row]) -> Tensor:
        """The pictures that people liked less ``[B, 3, H, W]``, of rows that have them."""
        sources = [row.loser for row in rows if row.loser is not None]
        return torch.stack([_load(source, self.resolution) for source in sources])

    def report(self) -> str:
        """How many rows are used, and which are not."""
        used = f"{self.folder} {self.split}: {len(self.rows)} pictures"
        if not self.bad:
            return used
        named = "; ".join(f"{bad.name}: {bad.reason}" for bad in self.bad[:NAMED])
        more = f"; and {len(self.bad) - NAMED} more" if len(self.bad) > NAMED else ""
        return f"{used}, {len(self.bad)} rows left out ({named}{more})"


def open_pictures(options: PictureOptions, split: str, resolution: int) -> PictureDataset:
    """The rows of a split whose pictures can be read and are large enough.

    Raises UserError when the folder has no captions, or when no row is left.
    """
    folder = Path(options.data_dir)
    if not folder.is_dir():
        raise UserError(f"--data_dir {folder} is no folder; python -m prepare.shapes makes one")
    rows: list[Row] = []
    bad: list[BadRow] = []
    for row in read_rows(folder, split, options.caption_column):
        row = row if isinstance(row, BadRow) else examined(row, resolution)
        (bad if isinstance(row, BadRow) else rows).append(row)  # type: ignore[arg-type]
        if options.max_pictures and len(rows) == options.max_pictures:
            break
    data = PictureDataset(folder, split, rows, bad, resolution)
    if not rows:
        raise UserError(f"nothing of it can be used: {data.report()}")
    return data


def examined(row: Row, resolution: int) -> Row | BadRow:
    """The row, where its pictures are some and have half of the resolution at least."""
    for source in (row.picture, row.loser):
        if source is None:
            continue
        try:
            width, height = open_picture(source).size
        except OSError:
            return BadRow(source.name, "no readable picture")
        if 2 * min(width, height) < resolution:
            return BadRow(source.name, f"{width} x {height} pixels are too few for {resolution}")
    return row


def _load(source: Source, resolution: int) -> Tensor:
    try:
        return load_pixels(source, resolution)
    except (OSError, ValueError) as error:
        raise UserError(f"{source.name} is damaged ({error}); take it out of the data") from None
