"""How pages are timed, in a real browser."""

import pytest

from eval.speed import pages
from eval.speed.pages import format_pages, measure_pages, motions_of, open_chromium
from prepare import synthetic
from tests.sample.browser import open_browser
from utils.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "data"
    synthetic.build(synthetic.Options(out=str(folder), num_clips=20, captions_per_clip=1))
    return folder


def test_motions_are_as_long_as_said_and_start_again_where_a_clip_is_short(data) -> None:
    found = motions_of(data, 30)
    assert {motion.joints.shape for motion in found} == {(pages.FRAMES, 22, 3)}
    assert len({motion.caption for motion in found}) > 5


def test_without_a_browser_the_package_is_named(monkeypatch) -> None:
    pytest.importorskip("playwright.sync_api")
    monkeypatch.setattr(pages.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="apt-get install chromium"), open_chromium():
        pass


@pytest.mark.browser
def test_pages_are_opened_and_played(data, tmp_path) -> None:
    with open_browser():
        pass  # skips where there is none
    few, more = measure_pages(data, tmp_path, True, 1, counts=(2, 20), watched=1.0)
    assert (few.motions, more.motions) == (2, 20)
    assert 0.5 < few.megabytes < more.megabytes < few.megabytes + 1
    assert 0 < few.seconds < 60
    assert few.rate > 0
    assert "SwiftShader" in few.renderer
    assert format_pages([few, more]).count("|") == 20
