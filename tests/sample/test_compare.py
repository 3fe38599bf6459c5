import pytest

from data_loaders.skeleton import KIT
from sample import compare as script
from sample.compare import Options, compare
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.sample.viewer_pages import read_page
from utils.errors import UserError
from utils.options import parse_options

pytest.importorskip("PIL")


def test_one_video_per_prompt_with_all_models_from_one_noise(tmp_path, monkeypatch) -> None:
    seeds = {"a": 1, "b": 1, "c": 2}
    models = [write_tiny_checkpoint(tmp_path / name, seed) for name, seed in seeds.items()]
    (tmp_path / "p.txt").write_text("walk\njump\n")
    rows = []

    def record(path, panels, skeleton, *, title):
        rows.append((title, panels))
        return path

    monkeypatch.setattr(script, "write_small_gif", record)
    options = Options(
        model_path=[str(path) for path in models],
        input_text=str(tmp_path / "p.txt"),
        motion_length=0.5,
        device="cpu",
        video="gif",
    )
    paths = compare(options)
    folder = tmp_path / "a" / "compare_a_b_c_seed10"
    assert paths == [folder / n for n in ("index.html", "compare00.gif", "compare01.gif")]
    page = read_page(folder / "index.html")
    assert page["runs"] == ["a", "b", "c"]
    assert [row["caption"] for row in page["rows"]] == ["walk", "jump"]
    same, equal, other = page["rows"][1]["motions"]
    assert same["scale"] == equal["scale"] != other["scale"]
    assert [title for title, _ in rows] == ["walk", "jump"]
    for _, ((a, b, c),) in rows:
        assert [a.caption, b.caption, c.caption] == ["a", "b", "c"]
        assert a.joints.shape == (10, 22, 3)
        assert (a.joints == b.joints).all(), "equal weights and noise give equal motions"
        assert abs(a.joints - c.joints).max() > 1e-3


def test_the_video_is_written(tmp_path) -> None:
    model = str(write_tiny_checkpoint(tmp_path / "a"))
    options = Options(
        model_path=[model, model],
        names=["base", "SoPo"],
        text_prompt="walk",
        motion_length=0.1,
        output_dir=str(tmp_path / "out"),
        device="cpu",
        video="gif",
    )
    page, path = compare(options)
    assert page.name == "index.html"
    assert path.stat().st_size > 1000
    with pytest.raises(UserError, match="already holds files"):
        compare(options)


def test_mistakes_are_named(tmp_path) -> None:
    model = str(write_tiny_checkpoint(tmp_path / "a"))
    with pytest.raises(UserError, match="2 names for 1 checkpoints"):
        parse_options(Options, ["--model_path", model, "--names", "a", "b"])
    with pytest.raises(UserError, match="--text_prompt or --input_text"):
        compare(Options(model_path=[model]))
    with pytest.raises(UserError, match="leave nothing to write"):
        parse_options(Options, ["--model_path", model, "--video", "none", "--page", "false"])
    kit = str(write_tiny_checkpoint(tmp_path / "kit", skeleton=KIT))
    with pytest.raises(UserError, match="another skeleton"):
        compare(Options(model_path=[model, kit], text_prompt="a", motion_length=0.2, device="cpu"))
