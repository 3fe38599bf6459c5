"""GIFs that stay below a size: panels, frames and colours are given up until the file fits."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_loaders.skeleton import Skeleton
from sample.video import Panel, draw_frames, encode_gif
from utils.files import atomic_write

MAX_BYTES = 400_000
PROBED = 6  # frames that are encoded to foretell the size of all
MARGIN = 1.25  # what is foretold may be so much above the limit, as the middle moves most


@dataclass(frozen=True)
class Quality:
    """panel_size in pixels; every `step`-th frame; colours of the palette."""

    panel_size: int
    step: int
    colors: int


# A still floor costs nothing in a GIF, but the camera follows the body: all pixels change
QUALITIES = (
    Quality(480, 1, 128),
    Quality(320, 2, 64),
    Quality(240, 2, 32),
    Quality(240, 4, 32),
    Quality(200, 4, 16),
    Quality(160, 4, 16),
    Quality(140, 5, 8),
)


def write_small_gif(
    path: Path,
    panels: list[list[Panel]],
    skeleton: Skeleton,
    *,
    title: str | Sequence[str] = "",
    max_bytes: int = MAX_BYTES,
) -> Path:
    """As `sample.video.write_video`, in the first of `QUALITIES` that stays below `max_bytes`.

    Where none does, as for motions of minutes, in the last. Atomic; returns `path`.
    """
    *others, last = QUALITIES
    for quality in others:
        if _foretell(panels, skeleton, title, quality) <= MARGIN * max_bytes:
            content = _encode(panels, skeleton, title, quality)
            if len(content) <= max_bytes:
                break
    else:
        content = _encode(panels, skeleton, title, last)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return path


def _encode(
    panels: list[list[Panel]],
    skeleton: Skeleton,
    title: str | Sequence[str],
    quality: Quality,
    chosen: range | None = None,
) -> bytes:
    thinned = [[replace(p, joints=p.joints[:: quality.step]) for p in row] for row in panels]
    slower = replace(skeleton, fps=skeleton.fps / quality.step)
    frames = draw_frames(thinned, slower, title=title, panel_size=quality.panel_size, chosen=chosen)
    stream = io.BytesIO()
    encode_gif(stream, frames, slower.fps, quality.colors)
    return stream.getvalue()


def _foretell(
    panels: list[list[Panel]], skeleton: Skeleton, title: str | Sequence[str], quality: Quality
) -> float:
    """About how many bytes all frames take, from a few in the middle.

    The first frame of a GIF is whole, the others hold what has changed.
    """
    frames = max(len(p.joints[:: quality.step]) for row in panels for p in row)
    middle = range(max(0, (frames - PROBED) // 2), min(frames, (frames + PROBED) // 2))
    first = len(_encode(panels, skeleton, title, quality, middle[:1]))
    if len(middle) == 1:
        return first
    some = len(_encode(panels, skeleton, title, quality, middle))
    return first + (some - first) / (len(middle) - 1) * (frames - 1)
