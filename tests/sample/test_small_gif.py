import numpy as np
import pytest

from data_loaders.skeleton import HUMANML
from sample import small_gif
from sample.small_gif import QUALITIES, Quality, write_small_gif
from sample.video import Panel
from tests.sample.viewer_pages import walking

Image = pytest.importorskip("PIL.Image")


def panels(frames: int, count: int = 2) -> list[list[Panel]]:
    return [[Panel(walking(frames), f"model {number}") for number in range(count)]]


def test_the_first_quality_that_fits_is_taken(tmp_path, monkeypatch) -> None:
    fine, coarse, last = Quality(96, 1, 64), Quality(64, 2, 16), Quality(48, 4, 8)
    monkeypatch.setattr(small_gif, "QUALITIES", (fine, coarse, last))
    path = tmp_path / "a.gif"
    sizes = []
    for limit, quality in ((10**9, fine), (0, coarse), (1, last)):
        bytes_allowed = limit or sizes[0] // 2
        write_small_gif(path, panels(20), HUMANML, max_bytes=bytes_allowed)
        with Image.open(path) as gif:
            assert gif.n_frames == 20 / quality.step
            assert gif.width == 2 * quality.panel_size
            assert gif.info["duration"] == 50 * quality.step
        sizes.append(path.stat().st_size)
    assert sizes[0] > 2 * sizes[1] > sizes[2]


def test_the_size_is_foretold_within_a_third() -> None:
    quality = Quality(96, 1, 32)
    whole = len(small_gif._encode(panels(40), HUMANML, "", quality))
    assert small_gif._foretell(panels(40), HUMANML, "", quality) == pytest.approx(whole, rel=0.33)


@pytest.mark.parametrize("frames", [1, 2])
def test_motions_of_a_frame_or_two(tmp_path, frames: int) -> None:
    path = write_small_gif(tmp_path / "a.gif", panels(frames), HUMANML, title="short")
    with Image.open(path) as gif:
        assert gif.width == 2 * QUALITIES[0].panel_size
        assert np.asarray(gif.convert("RGB")).std() > 5
