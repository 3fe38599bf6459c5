from pathlib import Path

import numpy as np
import pytest

from data_loaders.annotations import Annotations, CaptionNote
from data_loaders.facts import Fact
from data_loaders.motion_quality import jerk
from data_loaders.skeleton import HUMANML, KIT
from data_loaders.vocabulary import write_words
from model.mdm import generator as generators
from sample import generation as script
from sample.generation import (
    Options,
    generate,
    load_for_sampling,
    motion_frames,
    read_prompts,
    safe_name,
)
from sample.results import load_results
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.sample.viewer_pages import read_page
from utils.errors import UserError


@pytest.fixture
def model_path(tmp_path) -> str:
    return str(write_tiny_checkpoint(tmp_path / "tiny"))


def run(model_path: str, **changes) -> Path:
    settings = {"text_prompt": "a man waves", "motion_length": 0.5, "video": "none"} | changes
    return generate(Options(model_path=model_path, device="cpu", **settings))


def test_upstreams_folder_files_and_row_order(model_path: str, tmp_path) -> None:
    (tmp_path / "two words.txt").write_text("walk\njump  high\n")
    folder = run(
        model_path, text_prompt=None, input_text=str(tmp_path / "two words.txt"), num_repetitions=2
    )
    assert folder == tmp_path / "tiny" / "samples_tiny_000000007_seed10_two_words"
    names = {p.name for p in folder.iterdir()}
    assert names == {"index.html", "results.npy", "results.txt", "results_len.txt"}
    page = read_page(folder / "index.html")
    assert page["runs"] == ["take 1", "take 2"]
    assert [row["caption"] for row in page["rows"]] == ["walk", "jump high"]
    assert {m["frames"] for row in page["rows"] for m in row["motions"]} == {10}
    results = load_results(folder / "results.npy")
    assert results.motion.shape == (4, 22, 3, 10)
    assert results.text == ["walk", "jump high"] * 2
    assert results.lengths.tolist() == [10] * 4
    assert (results.num_samples, results.num_repetitions) == (2, 2)
    first, second = results.motion[:2], results.motion[2:]
    assert np.abs(first - second).max() > 1e-3, "each repetition draws new noise"


def test_the_seed_decides(model_path: str, tmp_path) -> None:
    folders = [
        run(model_path, output_dir=str(tmp_path / name), seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    a, b, c = (load_results(folder / "results.npy").motion for folder in folders)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_best_of_several_and_files_for_other_tools(model_path: str, tmp_path, capsys) -> None:
    (tmp_path / "p.txt").write_text("walk\njump")
    settings = {"text_prompt": None, "input_text": str(tmp_path / "p.txt"), "num_repetitions": 2}
    choice = {"best_of": 3, "reward": ["jerk"], "export": ["bvh", "npz"], "fps": 30.0}
    folder = run(model_path, **settings, **choice)
    assert "reward of 4 prompts: first" in capsys.readouterr().out
    names = {p.name for p in (folder / "export").iterdir()}
    assert names == {f"sample0{s}_rep0{r}.{t}" for s in "01" for r in "01" for t in ("bvh", "npz")}
    chosen = load_results(folder / "results.npy").motion
    plain = run(model_path, **settings, output_dir=str(tmp_path / "plain"))
    jerks = [
        [jerk(m.transpose(2, 0, 1), 20) for m in motions]
        for motions in (chosen, load_results(plain / "results.npy").motion)
    ]
    assert np.mean(jerks[0]) < np.mean(jerks[1])


def test_what_best_of_and_export_lack_is_told_before_a_folder_is_made(model_path, tmp_path) -> None:
    with pytest.raises(UserError, match="--smpl_path"):
        run(model_path, export=["smpl"], output_dir=str(tmp_path / "out"))
    with pytest.raises(UserError, match="needs a dataset"):
        run(model_path, best_of=2, reward=["facts"], output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_fewer_steps_and_ddim(model_path: str, tmp_path) -> None:
    folder = run(model_path, sampler="ddim", sample_steps=2, output_dir=str(tmp_path / "a"))
    assert np.isfinite(load_results(folder / "results.npy").motion).all()


def test_the_bar_counts_steps_not_network_calls(
    model_path: str, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(generators.FRAMES_PER_CALL, "cpu", 1)  # a call per motion
    (tmp_path / "p.txt").write_text("walk\njump")
    run(model_path, text_prompt=None, input_text=str(tmp_path / "p.txt"), num_repetitions=2)
    assert " 6/6 " in capsys.readouterr().err


def test_compile_reaches_the_generator(model_path: str) -> None:
    for compile in (True, False):
        options = Options(model_path=model_path, device="cpu", compile=compile)
        assert load_for_sampling(model_path, options).compiled is compile


def test_videos_are_named_as_upstreams(model_path: str, tmp_path) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "p.txt").write_text("a\nb\nc\nd")
    folder = run(
        model_path,
        text_prompt=None,
        input_text=str(tmp_path / "p.txt"),
        motion_length=0.1,
        num_repetitions=2,
        video="gif",
    )
    singles = {f"sample{s:02d}_rep{r:02d}.gif" for s in range(4) for r in range(2)}
    grids = {"samples_00_to_02.gif", "samples_03_to_03.gif"}
    assert {p.name for p in folder.glob("*.gif")} == singles | grids


def test_existing_results_are_kept_unless_told(model_path: str) -> None:
    folder = run(model_path)
    (folder / "notes.txt").write_text("mine")
    before = (folder / "results.npy").read_bytes()
    with pytest.raises(UserError, match="already holds files"):
        run(model_path, seed=10)
    assert (folder / "results.npy").read_bytes() == before
    run(model_path, overwrite=True, num_repetitions=1)
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(load_results(folder / "results.npy").text) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_prompt": " \t"}, "--text_prompt holds no words"),
        ({"text_prompt": ""}, "--text_prompt holds no words"),
        ({"input_text": "p.txt"}, "exclude each other"),
        ({"text_prompt": None, "input_text": "nowhere.txt"}, "nowhere.txt does not exist"),
        ({"motion_length": 9.9}, "198 frames; choose 0.05 to 9.8 seconds"),
        ({"motion_length": 0.01}, "0 frames"),
        ({"text_prompt": None, "dataset": "nothing"}, "dataset nothing"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(
    model_path: str, monkeypatch, changes, message: str
) -> None:
    monkeypatch.setattr(script, "load_for_sampling", lambda *a: pytest.fail("a model was loaded"))
    with pytest.raises(UserError, match=message):
        run(model_path, **changes)
    assert not list(Path(model_path).parent.glob("samples_*"))


def test_prompts_come_from_the_dataset(model_path: str, tmp_path) -> None:
    for part in ("new_joint_vecs", "texts"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(4):
        np.save(tmp_path / f"data/new_joint_vecs/{number}.npy", np.zeros((60, 263), np.float32))
        (tmp_path / f"data/texts/{number}.txt").write_text(f"walk {number}#walk/VERB#0.0#0.0\n")
    (tmp_path / "data/test.txt").write_text("0\n1\n2\n3\n")
    for name in ("Mean", "Std"):
        np.save(tmp_path / f"data/{name}.npy", np.ones(263, np.float32))
    from_data = {"text_prompt": None, "data_dir": str(tmp_path / "data"), "num_repetitions": 2}
    results = load_results(run(model_path, num_samples=3, **from_data) / "results.npy")
    assert len(set(results.text[:3])) == 3
    assert set(results.text) < {f"walk {number}" for number in range(4)}
    assert results.text[:3] == results.text[3:]
    assert results.lengths.tolist() == [10] * 6
    note = CaptionNote((Fact("travel", "in place"), Fact("jump_count", 9)), "")
    Annotations({results.text[0]: note}).save(tmp_path / "data")
    folder = run(model_path, num_samples=3, overwrite=True, **from_data)
    stated = [row["motions"][0]["facts"] for row in read_page(folder / "index.html")["rows"]]
    assert [fact["holds"] for fact in stated[0]] == [True, False]
    assert stated[1:] == [[], []], "of other captions nothing is known"
    with pytest.raises(UserError, match="exceeds the 4 clips of the test split"):
        run(model_path, num_samples=5, **from_data)


def test_a_missing_checkpoint_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"model000000001\.pt does not exist"):
        run(str(tmp_path / "model000000001.pt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b" \n\n", "is empty"), (b"\xff\xfe", "UTF-8")],
)
def test_prompt_files_without_prompts(tmp_path, content: bytes, message: str) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_prompts(Options(input_text=str(tmp_path / "p.txt")))


def test_prompt_files_of_other_systems(tmp_path) -> None:
    (tmp_path / "p.txt").write_bytes("\ufeffein Mann läuft\r\nb\r\n\r\n".encode())
    assert read_prompts(Options(input_text=str(tmp_path / "p.txt"))) == ["ein Mann läuft", "b"]


def test_lengths_follow_the_frame_rate() -> None:
    assert motion_frames(6.0, HUMANML) == 120
    assert motion_frames(9.8, HUMANML) == 196
    assert motion_frames(6.0, KIT) == 75


def test_file_names_are_safe() -> None:
    assert safe_name("a man waves. Twice.") == "a_man_waves_Twice"
    assert safe_name("../up/and\nover") == "_up_and_over"
    assert len(safe_name("x" * 500)) == 60


def test_a_diverged_model_is_reported(model_path: str, monkeypatch) -> None:
    def broken(*args):
        return script.torch.full((1, 10, 22, 3), float("nan"))

    monkeypatch.setattr(script, "features_to_joints", broken)
    with pytest.raises(UserError, match="diverged"):
        run(model_path)


def test_blank_lines_of_a_prompt_file_are_skipped(tmp_path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a man walks\n\n  \nsomeone   jumps\n")
    assert read_prompts(Options(input_text=str(path))) == ["a man walks", "someone jumps"]


def test_words_and_lengths_that_training_never_saw_are_told(tmp_path, capsys) -> None:
    model_path = write_tiny_checkpoint(tmp_path / "run")
    write_words(model_path.parent, ["a man walks to the left"])
    run(str(model_path), text_prompt="An astronaut moonwalks left", motion_length=0.5)
    output = capsys.readouterr().out
    assert "never held: an, astronaut, moonwalks\n" in output
    assert "10 frames are fewer than those of any training clip (2 s or more)" in output
    run(str(model_path), text_prompt="a man walks", motion_length=3)
    assert "warning" not in capsys.readouterr().out


def test_a_folder_stands_for_its_best_or_newest_checkpoint(tmp_path) -> None:
    model_path = write_tiny_checkpoint(tmp_path / "run")
    whole, folder = (
        run(str(path), text_prompt="a man walks", output_dir=str(tmp_path / name))
        for name, path in (("a", model_path), ("b", model_path.parent))
    )
    same = [load_results(out / "results.npy").motion for out in (whole, folder)]
    assert (same[0] == same[1]).all()
