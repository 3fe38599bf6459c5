"""The system's Chromium, without a window, for the tests that are marked `browser`."""

import io
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.speed.pages import open_chromium
from utils.errors import UserError

PATIENCE = 120.0  # seconds, for machines that are busy with other things


@contextmanager
def open_browser() -> Iterator[Any]:
    """Skips the test where Chromium or playwright is missing, and says which."""
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(open_chromium())
        except UserError as missing:
            pytest.skip(str(missing))
        yield browser


@dataclass
class Tab:
    """A page of the browser, and what it complained of: console errors, requests to elsewhere."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "GPU stall" not in text:  # of software rendering
            self.complaints.append(f"{kind}: {text}")

    def _check(self, url: str, address: str) -> None:
        own = address.rsplit("/", 1)[0]
        if not url.startswith((own, "blob:", "data:")):
            self.complaints.append(f"request to {url}")

    def value(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def wait(self, condition: str) -> None:
        """Until it is true; the pages forbid what playwright's own waiting would evaluate."""
        last = time.monotonic() + PATIENCE
        while not self.value(f"Boolean({condition})"):
            assert time.monotonic() < last, f"never: {condition}"
            self.page.wait_for_timeout(20)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def pixels(self, selector: str) -> np.ndarray:
        """What is shown of an element: RGB ``[H, W, 3]``."""
        shot = self.page.locator(selector).first.screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def draw(self) -> None:
        """Wait until the scene is drawn as it is now."""
        drawn = self.value("viewer.stage.drawn")
        self.value("viewer.stage.stale = true")
        self.wait(f"viewer.stage.drawn > {drawn}")


@contextmanager
def open_tab(
    browser: Any,
    address: str,
    width: int = 900,
    height: int = 640,
    motion: str = "reduce",
    until: str = "viewer.stage.drawn > 0",
    **context: Any,
) -> Iterator[Tab]:
    """A page in a window of its own, which is closed at the end. It may not have complained.

    motion: with `reduce`, what a person may ask the system for, nothing plays until it is told to.
    until: what is waited for first.
    """
    size = {"width": width, "height": height}
    window = browser.new_context(viewport=size, reduced_motion=motion, **context)
    window.set_default_timeout(1000 * PATIENCE)
    tab = Tab(window.new_page())
    try:
        tab.page.on("console", lambda said: tab._note(said.type, said.text))
        tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.page.on("request", lambda asked: tab._check(asked.url, address))
        tab.page.goto(address)
        tab.wait(until)
        yield tab
        assert not tab.complaints, tab.complaints
    finally:
        window.close()
