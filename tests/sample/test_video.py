import subprocess
import sys

import numpy as np
import pytest

from data_loaders.skeleton import HUMANML
from sample import video
from sample.video import Panel, draw_frames, video_suffix, wrap, write_video
from utils.errors import UserError

Image = pytest.importorskip("PIL.Image")
needs_ffmpeg = pytest.mark.skipif(video.find_ffmpeg() is None, reason="no ffmpeg")


def panel(frames: int, caption: str = "a person walks") -> Panel:
    path = np.cumsum(np.full((frames, 1, 3), [0.0, 0.0, 0.03]), axis=0)
    pose = np.random.default_rng(0).uniform(0, 1.5, size=(1, 22, 3))
    return Panel(path + pose, caption)


@needs_ffmpeg
def test_mp4_has_every_frame_and_the_frame_rate(tmp_path) -> None:
    path = write_video(tmp_path / "a.mp4", [[panel(24)]], HUMANML, panel_size=96)
    command = [video.find_ffmpeg(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True)
    first = next(draw_frames([[panel(24)]], HUMANML, panel_size=96))
    assert len(decoded.stdout) == 24 * first.width * first.height * 3
    assert b"20 fps" in decoded.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    shown = np.frombuffer(decoded.stdout[: first.width * first.height * 3], np.uint8)
    difference = np.abs(shown.astype(int) - np.asarray(first).ravel())
    assert difference.mean() < 8, "colours survive the encoding"


def test_gif_has_every_frame_and_the_frame_rate(tmp_path) -> None:
    write_video(tmp_path / "a.gif", [[panel(12)]], HUMANML, panel_size=96)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 12
        assert gif.info["duration"] == 50


def test_grids_have_even_sizes_and_last_as_long_as_the_longest() -> None:
    rows = [[panel(5, "short"), panel(9, "words " * 30)], [panel(3)]]
    frames = list(draw_frames(rows, HUMANML, title="a title", panel_size=80))
    assert len(frames) == 9
    assert frames[0].width == 160
    assert frames[0].height % 2 == 0
    assert frames[0].height > 160


def test_titles_stand_above_their_rows_and_notes_below_their_panels() -> None:
    def height(title, note: str) -> int:
        noted = Panel(panel(3).joints, "short", note)
        return next(draw_frames([[noted], [noted]], HUMANML, title=title, panel_size=80)).height

    plain = height("", "")
    assert height(["one", "two"], "") - plain == 2 * (height("one", "") - plain) > 0
    assert height("", "below") > plain


def test_line_breaks_of_a_note_are_kept() -> None:
    font = video._font(16)
    assert wrap("reward 0.91\njudge 0.88", font, 500) == ["reward 0.91", "judge 0.88"]


def test_a_failed_video_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"mp4 or \.gif"):
        write_video(tmp_path / "a.avi", [[panel(3)]], HUMANML)
    assert list(tmp_path.iterdir()) == []


@needs_ffmpeg
def test_what_ffmpeg_says_is_told(tmp_path) -> None:
    sizes = iter([Image.new("RGB", (63, 63))] * 3)  # H.264 needs even sides
    with pytest.raises(RuntimeError, match="not divisible by 2"):
        video._write_mp4(tmp_path / "a.mp4", sizes, 20.0)


def test_captions_are_wrapped_and_cut() -> None:
    font = video._font(16)
    assert wrap("", font, 200) == []
    assert wrap("two words", font, 200) == ["two words"]
    lines = wrap("a person walks " * 20, font, 200)
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert max(font.getlength(line) for line in lines) <= 200
    assert font.getlength(wrap("x" * 200, font, 200)[0]) <= 200


def test_formats_without_ffmpeg(monkeypatch, capsys) -> None:
    monkeypatch.setattr(video, "find_ffmpeg", lambda: None)
    assert video_suffix("none") == ""
    assert video_suffix("gif") == ".gif"
    assert video_suffix("auto") == ".gif"
    assert "no ffmpeg" in capsys.readouterr().out
    with pytest.raises(UserError, match="--video gif"):
        video_suffix("mp4")


def test_a_missing_pillow_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=r"\[vis\]"):
        video_suffix("auto")
    assert video_suffix("none") == ""
