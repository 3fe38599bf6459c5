"""Which captions are shown follows from the scores alone, and what is shown is what was scored."""

import numpy as np
import pytest
import torch

from data_loaders.skeleton import KIT
from eval import examples as script
from eval.examples import REAL, Choice, Comparison, Options, choose, run
from eval.motion_sets import MotionSet
from prepare.procedural import dataset as synthetic
from sample import small_gif
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.sample.viewer_pages import read_page
from tests.tmr.tiny import tiny_tmr
from utils.errors import UserError
from utils.files import read_json

pytest.importorskip("PIL")


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawings are the quickest ones."""
    monkeypatch.setattr(small_gif, "QUALITIES", small_gif.QUALITIES[-1:])


def test_first_middle_and_last_of_the_ranking_are_chosen() -> None:
    gains = torch.tensor([0.0, 0.4, -0.3, 0.1, -0.1, 0.2, -0.2])
    chosen = choose(gains, list("abcdefg"), 2)
    # From the largest: b f d a e g c. The middle two of seven are the third and the fourth.
    assert chosen == [
        Choice("gain1", 1, 1),
        Choice("gain2", 2, 5),
        Choice("median1", 3, 3),
        Choice("median2", 4, 0),
        Choice("loss1", 7, 2),
        Choice("loss2", 6, 6),
    ]
    (median,) = [c for c in choose(gains, list("abcdefg"), 1) if c.name == "median1"]
    assert gains[median.row] == gains.median()


def test_ties_follow_the_name_of_the_clip_whatever_the_order_of_the_split() -> None:
    clips = ["c", "a", "d", "b", "f", "e"]
    gains = torch.zeros(6)
    for order in (np.arange(6), np.random.default_rng(0).permutation(6)):
        names = [clips[i] for i in order]
        found = {c.name: names[c.row] for c in choose(gains, names, 2)}
        assert list(found.values()) == ["a", "b", "c", "d", "f", "e"]


def test_no_caption_is_shown_twice() -> None:
    rows = [c.row for c in choose(torch.arange(9.0), list("abcdefghi"), 3)]
    assert sorted(rows) == list(range(9))
    with pytest.raises(UserError, match="needs 9 captions, the split has 8"):
        choose(torch.arange(8.0), list("abcdefgh"), 3)


def test_the_gain_is_the_second_models_score_minus_the_firsts() -> None:
    scores = {REAL: torch.tensor([0.9]), "a": torch.tensor([0.25]), "b": torch.tensor([0.75])}
    assert Comparison({}, scores).gains.tolist() == [0.5]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("examples")
    synthetic.build(synthetic.Options(out=str(root / "data"), num_clips=20, captions_per_clip=1))
    names = (root / "data" / "all.txt").read_text().splitlines()
    (root / "data" / "val.txt").write_text("\n".join(names[:6]) + "\n")
    tiny_tmr(features=263).save(root / "judge")
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        write_tiny_checkpoint(root / name, seed)
    return root


def options(place, models: str, output, **changes) -> Options:
    values = {
        "model_path": [str(place / name / "model000000007.pt") for name in models],
        "judge_path": str(place / "judge"),
        "dataset": "tiny",
        "data_dir": str(place / "data"),
        "split": "val",
        "device": "cpu",
        "output_dir": str(output),
        "count": 1,
    }
    return Options(**(values | changes))


def test_tables_and_panels_hold_what_was_scored(place, tmp_path, monkeypatch) -> None:
    videos = {}

    def record(path, panels, skeleton, *, title):
        videos[path.name] = (panels, skeleton.fps, title)

    monkeypatch.setattr(script, "write_small_gif", record)
    page = run(options(place, "ac", tmp_path / "out"))
    report = read_json(tmp_path / "out" / "examples.json")
    assert (tmp_path / "out" / "examples.md").read_text() == page
    assert report["captions"] == 6
    found = {example["file"]: example for example in report["examples"]}
    assert list(found) == ["gain1.gif", "median1.gif", "loss1.gif"]
    assert list(videos) == [*found, "examples.gif"]
    assert found["gain1.gif"]["gain"] >= found["median1.gif"]["gain"]
    assert found["median1.gif"]["gain"] >= found["loss1.gif"]["gain"]
    for file, example in found.items():
        scores = example["scores"]
        assert example["gain"] == pytest.approx(scores["c"] - scores["a"], abs=1e-6)
        assert f"| {example['caption']} | {scores['real']:.3f} | {scores['a']:.3f} |" in page
        (panels,), fps, title = videos[file]
        assert title == [example["caption"]]
        assert [p.caption for p in panels] == ["real", "a", "c"]
        assert all(panel.note.startswith(f"judge {scores[panel.caption]:.3f}") for panel in panels)
        features = np.load(place / "data" / "new_joint_vecs" / f"{example['clip']}.npy")
        assert fps == 20
        lengths = {len(panel.joints) for panel in panels}
        assert lengths == {len(features) // 4 * 4}, "motions are cut to whole units of 4 frames"
        heights = features[: len(panels[0].joints), 3]
        np.testing.assert_allclose(panels[0].joints[:, 0, 1], heights, atol=1e-4)
    shown = read_page(tmp_path / "out" / "index.html")
    assert shown["runs"] == ["real", "a", "c"]
    gains = [row["motions"][2]["figures"]["gain"] for row in shown["rows"]]
    assert len(gains) == 6
    assert gains == sorted(gains, reverse=True)
    first = shown["rows"][0]
    assert first["caption"] == found["gain1.gif"]["caption"]
    judged = {
        n: m["figures"]["judge"] for n, m in zip(shown["runs"], first["motions"], strict=True)
    }
    assert judged == pytest.approx(found["gain1.gif"]["scores"])
    assert [m["seed"] for m in first["motions"]] == [None, 10, 10]
    assert all(fact["holds"] for fact in first["motions"][0]["facts"])
    rows, _, titles = videos["examples.gif"]
    assert titles == [example["caption"] for example in found.values()]
    assert [row[0].note for row in rows] == [videos[file][0][0][0].note for file in found]


def test_rewards_and_facts_stand_below_the_panels(place, tmp_path, monkeypatch) -> None:
    """The facts of a caption hold on its own clip; the last of three models is ranked."""
    notes = {}

    def record(path, panels, skeleton, *, title):
        notes[path.name] = {panel.caption: panel.note for panel in panels[0]}

    monkeypatch.setattr(script, "write_small_gif", record)
    reward = str(place / "judge")
    run(options(place, "abc", tmp_path / "out", reward_path=reward))
    for example in read_json(tmp_path / "out" / "examples.json")["examples"]:
        scores = example["scores"]
        assert set(scores) == {"real", "a", "b", "c"}
        assert example["gain"] == pytest.approx(scores["c"] - scores["a"], abs=1e-6)
        assert example["rewards"] == pytest.approx(scores)
        stated = example["stated"]
        assert example["facts"]["real"] == stated > 0
        shown = f"reward {scores['c']:.3f}\njudge {scores['c']:.3f}\n"
        assert notes[example["file"]]["c"] == f"{shown}facts {example['facts']['c']} of {stated}"


def test_equal_models_gain_nothing_because_the_noise_is_the_same(place, tmp_path) -> None:
    run(options(place, "ab", tmp_path / "out"))
    report = read_json(tmp_path / "out" / "examples.json")
    assert [example["gain"] for example in report["examples"]] == [0, 0, 0]
    assert report["share_of_gains"] == 0
    assert all((tmp_path / "out" / e["file"]).stat().st_size > 1000 for e in report["examples"])
    with pytest.raises(UserError, match="already holds files"):
        run(options(place, "ab", tmp_path / "out"))


def test_a_caption_with_a_broken_motion_is_left_out(place, tmp_path, monkeypatch, capsys) -> None:
    real_generated = script.generated_motions

    def broken(generator, real: MotionSet, settings, name: str) -> MotionSet:
        motions = real_generated(generator, real, settings, name)
        if name == "c":
            motions.motions[0, 3] = torch.nan
        return motions

    monkeypatch.setattr(script, "generated_motions", broken)
    monkeypatch.setattr(script, "write_small_gif", lambda *_, **__: None)
    run(options(place, "ac", tmp_path / "out"))
    assert read_json(tmp_path / "out" / "examples.json")["captions"] == 5
    assert "1 captions left out" in capsys.readouterr().out


def test_mistakes_are_named(place, tmp_path) -> None:
    with pytest.raises(UserError, match="names one checkpoint; give two or more"):
        options(place, "a", tmp_path).validate()
    with pytest.raises(UserError, match="different --names"):
        options(place, "aa", tmp_path).validate()
    with pytest.raises(UserError, match="different --names"):
        options(place, "ab", tmp_path, names=["real", "b"]).validate()
    write_tiny_checkpoint(place / "k", skeleton=KIT)
    with pytest.raises(UserError, match="makes kit motions"):
        run(options(place, "ak", tmp_path / "out"))
