"""Where the bytes of a picture are, and what leads from them to pixels and back."""

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from utils.extras import extra


class Source(Protocol):
    @property
    def name(self) -> str:
        """For messages."""

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class FileSource:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def read(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class CellSource:
    path: Path
    group: int
    row: int
    column: str

    @property
    def name(self) -> str:
        return f"{self.path.name} row {self.row} of group {self.group}"

    def read(self) -> bytes:
        return bytes(_column(self.path, self.group, self.column)[self.row].as_py() or b"")


@lru_cache(maxsize=4)
def _column(path: Path, group: int, column: str) -> Any:
    table = extra("pyarrow.parquet").ParquetFile(path).read_row_group(group, columns=[column])
    return table.column(column)


def open_picture(source: Source) -> Any:
    """A Pillow image of which only the header is read. Raises OSError when it is none."""
    return extra("PIL.Image").open(io.BytesIO(source.read()))


def fit_square(picture: Any, size: int) -> Any:
    """The short side is fitted, bicubic, and the middle is cut out."""
    short = min(picture.size)
    width, height = (int(size * side / short) for side in picture.size)
    fitted = picture.resize((width, height), extra("PIL.Image").Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return fitted.crop((left, top, left + size, top + size))


def pixels_of(picture: Any) -> Tensor:
    """``[3, H, W]`` in [0, 1]."""
    return torch.tensor(np.asarray(picture)).permute(2, 0, 1).float() / 255


def eight_bits(images: Tensor) -> Tensor:
    """Pictures in [0, 1] as a file would keep them."""
    return (images.detach().float().clamp(0, 1) * 255).round().byte()


def pil_of(image: Tensor) -> Any:
    """A picture ``[3, H, W]`` in [0, 1] with 8 bits per channel."""
    pixels = eight_bits(image).permute(1, 2, 0).cpu().numpy()
    return extra("PIL.Image").fromarray(pixels)


def load_pixels(source: Source, size: int) -> Tensor:
    """``[3, size, size]`` in [0, 1]. Raises OSError when the bytes are damaged."""
    return pixels_of(fit_square(open_picture(source).convert("RGB"), size))
