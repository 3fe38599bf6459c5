"""Stick-figure videos of motions: single clips and grids, as MP4 or GIF."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from data_loaders.skeleton import Skeleton
from sample.figure import BACKGROUND, LEFT, PATH, RIGHT, Color, Stage
from utils.errors import UserError
from utils.extras import extra
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
    """One motion ``[T, J, 3]`` (in the units of its skeleton), the text above and below it."""

    joints: np.ndarray
    caption: str
    note: str = ""


def video_suffix(choice: str) -> str:
    """File suffix for a ``--video`` choice: ``.mp4``, ``.gif``, or ``""`` for none.

    ``auto`` takes MP4 where an ffmpeg is found, else GIF, and says so. Raises UserError when
    Pillow is missing, or ffmpeg for an explicit ``mp4``.
    """
    if choice == "none":
        return ""
    extra("PIL", "vis", "videos (--video none writes none)")
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
    title: str | Sequence[str] = "",
    panel_size: int = 480,
) -> Path:
    """Animate rows of panels into `path` (``.mp4`` or ``.gif``), atomically; returns `path`.

    `title` stands above the first row, several titles above a row each. All panels share one scale.
    A motion that ends earlier than the longest keeps its last pose.
    """
    frames = draw_frames(panels, skeleton, title=title, panel_size=panel_size)
    with atomic_write(path) as temporary:
        if path.suffix == ".mp4":
            _write_mp4(temporary, frames, skeleton.fps)
        elif path.suffix == ".gif":
            encode_gif(temporary, frames, skeleton.fps)
        else:
            raise ValueError(f"{path}: videos are .mp4 or .gif")
    return path


def draw_frames(
    panels: list[list[Panel]],
    skeleton: Skeleton,
    *,
    title: str | Sequence[str] = "",
    panel_size: int = 480,
    chosen: Iterable[int] | None = None,
) -> Iterator["Image.Image"]:
    """The frames of a grid of panels as RGB images of one even size: all, or only the `chosen`."""
    flat = list(chain.from_iterable(panels))
    stages = [Stage(panel.joints, skeleton, skeleton.fps) for panel in flat]
    extent = max(stage.extent() for stage in stages)
    titles = [title] if isinstance(title, str) else list(title)
    sheet, corners = _lay_out(panels, titles, panel_size)
    for frame in chosen or range(max(len(stage) for stage in stages)):
        image = sheet.copy()
        for stage, corner in zip(stages, corners, strict=True):
            image.paste(stage.draw(frame, panel_size, extent), corner)
            _draw_clock(image, corner, panel_size, min(frame, len(stage) - 1), stage)
        yield image


def _lay_out(
    panels: list[list[Panel]], titles: list[str], size: int
) -> tuple["Image.Image", list[tuple[int, int]]]:
    """The still part of all frames (texts, rules) and the corner of every panel's view."""
    from PIL import Image, ImageDraw

    width = size * max(len(row) for row in panels)
    large, font = _font(24), _font(max(16, size // 25))
    headings = [wrap(title, large, width - 2 * MARGIN) for title in titles]
    headings += [[]] * (len(panels) - len(titles))
    captions = [[wrap(p.caption, font, size - 2 * MARGIN) for p in row] for row in panels]
    notes = [[wrap(p.note, font, size - 2 * MARGIN) for p in row] for row in panels]
    tops = [_text_height(lines, large) for lines in headings]
    bands = [_text_height(max(row, key=len), font) for row in captions]
    feet = [_text_height(max(row, key=len), font) for row in notes]
    height = sum(tops) + sum(bands) + sum(feet) + size * len(panels)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    corners, top = [], 0
    for row in range(len(panels)):
        if row:
            draw.line((0, top, width, top), RULE)
        _write_lines(draw, headings[row], large, width / 2, top + MARGIN)
        top += tops[row]
        view, bottom = top + bands[row], top + bands[row] + size + feet[row]
        if tops[row]:
            draw.line((0, top, width, top), RULE)
        for column, (above, below) in enumerate(zip(captions[row], notes[row], strict=True)):
            if column:
                draw.line((column * size, top, column * size, bottom), RULE)
            center = (column + 0.5) * size
            _write_lines(draw, above, font, center, top + MARGIN * 0.75)
            _write_lines(draw, below, font, center, view + size + MARGIN * 0.25)
            corners.append((column * size, view))
        top = bottom
    return sheet, corners


def wrap(text: str, font: "ImageFont.FreeTypeFont", width: float) -> list[str]:
    """`text` in at most three lines that fit into `width` pixels; what is cut ends in ``...``.

    Its own line breaks are kept.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        lines.append("")
        for word in line.split():
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


def encode_gif(
    target: Path | BinaryIO, frames: Iterator["Image.Image"], fps: float, colors: int = GIF_COLORS
) -> None:
    """All frames share the palette of the first, so that still parts cost nothing."""
    first = next(frames).quantize(colors)
    rest = (frame.quantize(palette=first, dither=0) for frame in frames)
    first.save(
        target,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=round(1000 / fps),
        loop=0,
        optimize=False,
    )
