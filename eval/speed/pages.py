"""How large viewer pages are, how soon they stand and how often a headless Chromium draws them."""

import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loaders.features import features_to_joints
from data_loaders.humanml import open_dataset
from data_loaders.skeleton import HUMANML
from eval.motion_sets import real_motions
from sample.viewer.page import Motion, Run, write_pages
from utils.errors import UserError
from utils.extras import extra
from utils.tables import markdown_table

COUNTS = (3, 30, 300)  # motions of a page
FRAMES = 120  # of each: six seconds
WATCHED = 5.0  # seconds of playing over which pictures are counted
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
COUNT_PICTURES = """async (seconds) => {
    viewer.playing = true;
    const before = viewer.stage.drawn, start = performance.now();
    while (performance.now() - start < 1000 * seconds) await new Promise(requestAnimationFrame);
    return 1000 * (viewer.stage.drawn - before) / (performance.now() - start);
}"""
RENDERER = """(() => {
    const gl = document.createElement("canvas").getContext("webgl2");
    return gl.getParameter(gl.getExtension("WEBGL_debug_renderer_info").UNMASKED_RENDERER_WEBGL);
})()"""


@dataclass(frozen=True)
class PageTiming:
    """seconds: from the call of the page to its first drawn picture, the median; rate: pictures
    per second while it plays; renderer: what drew them."""

    motions: int
    megabytes: float
    seconds: float
    rate: float
    renderer: str


@contextmanager
def open_chromium(software: bool = True) -> Iterator[Any]:
    """The system's Chromium without a window, driven by playwright.

    software: draw on the CPU, as machines without a GPU must. Raises UserError where either is
    missing.
    """
    playwright = extra("playwright.sync_api", "browser", "measurements of pages")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        raise UserError("no Chromium on this machine; on Debian: apt-get install chromium")
    # A container's root cannot have Chromium's sandbox; the pages are ours
    arguments = ["--no-sandbox", *(SOFTWARE_WEBGL if software else ("--enable-gpu",))]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


def motions_of(data_dir: Path, count: int) -> list[Motion]:
    """Motions of `FRAMES` frames out of a dataset, each from its beginning again if it is short."""
    data = open_dataset("pages", "train", str(data_dir), random_items=False)
    clips = real_motions(data, batch_size=64)
    found = []
    for row in (number % len(clips.captions) for number in range(count)):
        frames = [n % int(clips.lengths[row]) for n in range(FRAMES)]
        joints = features_to_joints(clips.motions[row], HUMANML).numpy()[frames]
        found.append(Motion(clips.captions[row], joints))
    return found


def measure_pages(
    data_dir: Path,
    folder: Path,
    software: bool,
    repetitions: int,
    counts: Sequence[int] = COUNTS,
    watched: float = WATCHED,
) -> list[PageTiming]:
    """A page of each size, opened `repetitions` times and played once; pages go to `folder`."""
    timings = []
    with open_chromium(software) as browser:
        for count in counts:
            run = Run("motions", motions_of(data_dir, count))
            (path,) = write_pages(folder / str(count), [run], HUMANML, f"{count} motions")
            seconds = []
            for _ in range(repetitions):
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.goto(path.as_uri())
                while not page.evaluate("viewer.stage.drawn > 0"):
                    page.wait_for_timeout(5)
                seconds.append(page.evaluate("performance.now()") / 1000)
                rate, renderer = page.evaluate(COUNT_PICTURES, watched), page.evaluate(RENDERER)
                page.close()
            size = path.stat().st_size / 1e6
            timings.append(PageTiming(count, size, statistics.median(seconds), rate, renderer))
    return timings


def format_pages(timings: Sequence[PageTiming]) -> str:
    rows = [
        [str(t.motions), f"{t.megabytes:.2f}", f"{t.seconds:.2f}", f"{t.rate:.1f}"] for t in timings
    ]
    table = markdown_table(["motions", "MB", "seconds to the first picture", "pictures/s"], rows)
    return f"drawn by {timings[0].renderer}\n\n{table}"
