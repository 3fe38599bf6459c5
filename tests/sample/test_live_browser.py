"""The live page in a headless Chromium: a prompt is typed, a motion moves."""

import numpy as np
import pytest

from tests.sample.browser import open_browser, open_tab
from tests.sample.test_live import serving, tiny_studio

pytestmark = pytest.mark.browser


def test_a_prompt_becomes_motions_side_by_side(tmp_path) -> None:
    with (
        serving(tiny_studio(tmp_path)) as port,
        open_browser() as browser,
        open_tab(browser, f"http://127.0.0.1:{port}/", until="byId('wish')") as tab,
    ):
        tab.press("ArrowRight", "b", "Home")  # keys do no harm before there is a motion
        tab.page.fill("[name=prompt]", "a person <b>waves</b>")
        tab.page.fill("[name=seconds]", "1")
        tab.page.click("#wish button")
        tab.wait("viewer.stage && viewer.stage.drawn > 0")
        assert tab.text("#caption") == "a person <b>waves</b>"
        assert tab.texts(".panel header b") == ["a", "b"]
        assert tab.text("#clock") == "0.0 of 0.9 s · frame 0 of 19"
        still = tab.pixels("#stage")
        assert len(np.unique(still.reshape(-1, 3), axis=0)) > 50
        with tab.page.expect_download() as download:
            tab.page.click("#downloads li:nth-child(2) >> text=bvh")
        assert download.value.suggested_filename == "a_person__b_waves__b__b.bvh"
        assert download.value.path().read_text().startswith("HIERARCHY")
        tab.page.click("#play")
        tab.wait("viewer.time > 0.3")
        tab.page.fill("[name=seconds]", "30")
        tab.page.click("#wish button")
        tab.wait("byId('told').textContent !== ''")
        assert "choose 0.05 to 9.8 seconds" in tab.text("#told")
        assert tab.texts(".panel header b") == ["a", "b"], "what was there stays"
        tab.complaints[:] = [c for c in tab.complaints if "status of 400" not in c]
