"""Stick-figure videos of motions: single clips and grids, as MP4 or GIF."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_loaders.skeleton import Skeleton
from sample.figure import BACKGROUND, LEFT, PATH, RIGHT, Color, Stage
from utils.errors import UserError
from utils.files import atomic_write

if TYPE_CHECKING:
    from PIL import Image, ImageFont

FORMATS = ("auto", "mp4", "gif", "none")
INK: Color = (26, 32, 44)
RULE: Color = (214, 220, 229)
MARGIN = 16  # pixels
MAX_LINES = 3  # of a caption
GIF_COLORS = 128


@dataclass(frozen=True)
class Panel:
    """One motion ``[T, J, 3]`` (in the units of its skeleton) and the text above it."""

    joints: np.ndarray
    caption: str


def video_suffix(choice: str) -> str:
    """File suffix for a ``--video`` choice: ``.mp4``, ``.gif``, or ``""`` for none.

    ``auto`` takes MP4 where an ffmpeg is found, else GIF, and says so. Raises UserError when
    Pillow is missing, or ffmpeg for an explicit ``mp4``.
    """
    if choice == "none":
        return ""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise UserError(
            "videos need Pillow; install the extra: pip install '.[vis]', or pass --video none"
        ) from None
    if choice == "gif":
        return ".gif"
    if find_ffmpeg():
        return ".mp4"
    if choice == "mp4":
        raise UserError(
            "--video mp4 needs ffmpeg; install the extra: pip install '.[vis]', or pass --video gif"
        )
    print("note: no ffmpeg found (extra `vis`); videos are written as GIF")
    return ".gif"


def find_ffmpeg() -> str | None:
    """The binary that imageio-ffmpeg carries, else the system's, else None."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


def write_video(
    path: Path,
    panels: list[list[Panel]],
    skeleton: Skeleton,
    *,
    title: str = "",
    panel_size: int = 480,
) -> Path:
    """Animate rows of panels into `path` (``.mp4`` or ``.gif``), atomically; returns `path`.

    All panels share one scale. A motion that ends earlier than the longest keeps its last pose.
    """
    frames = draw_frames(panels, skeleton, title=title, panel_size=panel_size)
    with atomic_write(path) as temporary:
        if path.suffix == ".mp4":
            _write_mp4(temporary, frames, skeleton.fps)
        elif path.suffix == ".gif":
            _write_gif(temporary, frames, skeleton.fps)
        else:
            raise ValueError(f"{path}: videos are .mp4 or .gif")
    return path


def draw_frames(
    panels: list[list[Panel]],
    skeleton: Skeleton,
    *,
    title: str = "",
    panel_size: int = 480,
    chosen: Iterable[int] | None = None,
) -> Iterator["Image.Image"]:
    """The frames of a grid of panels as RGB images of one even size: all, or only the `chosen`."""
    flat = list(chain.from_iterable(panels))
    stages = [Stage(panel.joints, skeleton, skeleton.fps) for panel in flat]
    extent = max(stage.extent() for stage in stages)
    sheet, corners = _lay_out(panels, title, panel_size)
    for frame in chosen or range(max(len(stage) for stage in stages)):
        image = sheet.copy()
        for stage, corner in zip(stages, corners, strict=True):
            image.paste(stage.draw(frame, panel_size, extent), corner)
            _draw_clock(image, corner, panel_size, min(frame, len(stage) - 1), stage)
        yield image


def _lay_out(
    panels: list[list[Panel]], title: str, size: int
) -> tuple["Image.Image", list[tuple[int, int]]]:
    """The still part of all frames (texts, rules) and the corner of every panel's view."""
    from PIL import Image, ImageDraw

    width = size * max(len(row) for row in panels)
    heading = wrap(title, _font(24), width - 2 * MARGIN)
    font = _font(max(16, size // 25))
    captions = [[wrap(p.caption, font, size - 2 * MARGIN) for p in row] for row in panels]
    bands = [_text_height(max(row, key=len), font) for row in captions]
    top = _text_height(heading, _font(24))
    sheet = Image.new("RGB", (width, top + sum(bands) + size * len(panels)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _write_lines(draw, heading, _font(24), width / 2, MARGIN)
    corners = []
    for lines, band in zip(captions, bands, strict=True):
        if top:
            draw.line((0, top, width, top), RULE)
        for column, text in enumerate(lines):
            if column:
                draw.line((column * size, top, column * size, top + band + size), RULE)
            _write_lines(draw, text, font, (column + 0.5) * size, top + MARGIN * 0.75)
            corners.append((column * size, top + band))
        top += band + size
    return sheet, corners


def wrap(text: str, font: "ImageFont.FreeTypeFont", width: float) -> list[str]:
    """`text` in at most three lines that fit into `width` pixels; what is cut ends in ``...``."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    cut = len(lines) > MAX_LINES
    return [
        _shorten(line, font, width, cut and number == MAX_LINES - 1)
        for number, line in enumerate(lines[:MAX_LINES])
        if line
    ]


def _shorten(line: str, font: "ImageFont.FreeTypeFont", width: float, cut: bool) -> str:
    if not cut and font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}...") > width:
        line = line[:-1]
    return f"{line}..."


def _text_height(lines: list[str], font: "ImageFont.FreeTypeFont") -> int:
    """Height of a band with these lines, even, because MP4 halves the colour resolution."""
    return 2 * round((1.25 * font.size * len(lines) + MARGIN * 1.25) / 2) if lines else 0


def _write_lines(draw, lines: list[str], font, center: float, top: float) -> None:
    for number, line in enumerate(lines):
        draw.text((center, top + 1.25 * font.size * number), line, INK, font, anchor="ma")


def _draw_clock(
    image: "Image.Image", corner: tuple[int, int], size: int, frame: int, stage: Stage
) -> None:
    """Time, which colour is which side, how much of the motion has passed, and the panel's edge."""
    from PIL import ImageDraw

    draw, font = ImageDraw.Draw(image), _font(14)
    left, right = corner[0] + MARGIN, corner[0] + size - MARGIN
    bottom = corner[1] + size - MARGIN
    if corner[0] > 0:
        draw.line((corner[0], corner[1], corner[0], corner[1] + size), RULE)
    done = left + (right - left) * frame / max(1, len(stage) - 1)
    draw.line((left, bottom, right, bottom), RULE, 3)
    draw.line((left, bottom, done, bottom), PATH, 3)
    draw.text((left, bottom - 8), f"{frame / stage.fps:.1f} s", INK, font, anchor="ls")
    draw.text((right, bottom - 8), "right", RIGHT, font, anchor="rs")
    draw.text((right - 44, bottom - 8), "left", LEFT, font, anchor="rs")


@lru_cache
def _font(size: int) -> "ImageFont.FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _write_mp4(path: Path, frames: Iterator["Image.Image"], fps: float) -> None:
    """Pipe raw frames into ffmpeg (H.264, plays everywhere)."""
    first = next(frames)
    command = [
        *(find_ffmpeg(), "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.width}x{first.height}"),
        *("-r", str(fps), "-i", "-", "-an", "-c:v", "libx264", "-preset", "veryfast"),
        *("-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as ffmpeg:
        try:
            for frame in chain([first], frames):
                ffmpeg.stdin.write(frame.tobytes())
            ffmpeg.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg has given up; its own words follow
        message = ffmpeg.stderr.read().decode(errors="replace").strip()
    if ffmpeg.returncode != 0:
        raise RuntimeError(f"ffmpeg failed on {path}: {message}")


def _write_gif(path: Path, frames: Iterator["Image.Image"], fps: float) -> None:
    """All frames share the palette of the first, so that still parts cost nothing."""
    first = next(frames).quantize(GIF_COLORS)
    rest = (frame.quantize(palette=first, dither=0) for frame in frames)
    first.save(
        path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, optimize=False
    )
