import csv
import json
import sys

import numpy as np
import pytest
import torch

from data_loaders.annotations import Annotations
from data_loaders.facts import Fact, swap_sides
from data_loaders.features import features_to_joints, mirror_joints
from data_loaders.humanml import make_loader, open_dataset
from data_loaders.skeleton import HUMANML
from prepare.bvh.dataset import Options, build_dataset
from prepare.bvh.files import match_files
from prepare.from_bvh import main
from prepare.write_dataset import swap_side_words
from tests.paths import MOCAP_DIR, needs_mocap
from tests.prepare.rigs import RIGS, bvh_text
from utils.errors import UserError


@pytest.fixture
def mocap(tmp_path):
    """A folder with eight clips in two subfolders."""
    for number in range(8):
        folder = tmp_path / "bvh" / f"take{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"walk{number}.bvh").write_text(bvh_text(turn=20.0 + 5 * number))
    return tmp_path


def write_captions(folder, rows, columns="file,caption"):
    path = folder / "captions.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


def options_for(folder, **settings) -> Options:
    names = [f"walk{number}" for number in range(8)]
    if not (folder / "captions.csv").exists():
        write_captions(folder, [[name, f"a person walks and turns left {name}"] for name in names])
    return Options(
        bvh_dir=str(folder / "bvh"),
        captions=str(folder / "captions.csv"),
        out=str(folder / "out"),
        **({"jobs": 1} | settings),
    )


def read_names(folder, split):
    return (folder / "out" / f"{split}.txt").read_text().split()


# The whole dataset


def test_layout_mirrors_and_statistics(mocap):
    report = build_dataset(options_for(mocap, val_share=0.25, test_share=0.25))
    out = mocap / "out"
    lists = {split: read_names(mocap, split) for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in lists.items()} == report.clips
    assert report.clips == {"train": 8, "val": 4, "test": 4}
    assert read_names(mocap, "train_val") == sorted(
        lists["train"] + lists["val"], key=lambda name: (name[-6:], name)
    )
    assert len(set(read_names(mocap, "all"))) == 16
    for names in lists.values():
        assert {f"M{name}" for name in names if name[0] != "M"} == {n for n in names if n[0] == "M"}
    rows = np.concatenate([np.load(out / "new_joint_vecs" / f"{n}.npy") for n in lists["train"]])
    np.testing.assert_allclose(np.load(out / "Mean.npy"), rows.mean(axis=0), atol=1e-5)
    assert np.load(out / "new_joints" / "000000.npy").shape == (49, 22, 3)
    assert not list(mocap.glob(".out*"))


def test_mirrored_clips_move_and_read_mirrored(mocap):
    facts = '[{"kind": "turn_side", "value": "left"}]'
    rows = [[f"walk{n}.bvh", f"turns left {n}", facts, "turn-left", "turn-left"] for n in range(8)]
    write_captions(mocap, rows, "file,caption,facts,meaning,family")
    build_dataset(options_for(mocap))
    out = mocap / "out"
    original, mirrored = (
        features_to_joints(torch.from_numpy(np.load(out / "new_joint_vecs" / f"{name}.npy")))
        for name in ("000003", "M000003")
    )
    # The reference body is not quite symmetric, hence centimetres.
    assert (mirror_joints(original) - mirrored).abs().max() < 0.05
    assert (original - mirrored).abs().max() > 0.2
    text = (out / "texts" / "M000003.txt").read_text()
    assert text.startswith("turns right")
    assert "left" not in text
    notes = Annotations.load(out)
    fact = Fact("turn_side", "left")
    assert notes.captions[text.split("#")[0]].facts == (swap_sides(fact),)
    assert notes.captions[text.split("#")[0]].meaning == "turn-right"
    assert notes.clips["M000003"].family == "turn-right"
    assert notes.clips["000003"].family == "turn-left"


def test_the_loader_opens_it(mocap):
    build_dataset(options_for(mocap))
    dataset = open_dataset("own", "train", data_dir=str(mocap / "out"))
    assert {entry.name for entry in dataset.entries} == set(read_names(mocap, "train"))
    assert {entry.length for entry in dataset.entries} == {49}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_seed_same_bytes_whatever_the_number_of_workers(mocap):
    build_dataset(options_for(mocap, split_seed=3))
    first = contents(mocap / "out")
    build_dataset(options_for(mocap, split_seed=3, jobs=2, overwrite=True))
    second = contents(mocap / "out")
    assert first.pop("dataset.json") != second.pop("dataset.json")  # holds the options
    assert first == second


def test_files_that_cannot_be_used_are_named(mocap):
    folder = mocap / "bvh" / "take0"
    whole = (folder / "walk0.bvh").read_text()
    (folder / "walk0.bvh").write_text(whole[: len(whole) - 500])
    (folder / "walk2.bvh").write_text(whole.replace("Hips", "Pelvis"))
    (folder / "walk4.bvh").write_text(bvh_text(frames=30))
    (folder / "unheard.bvh").write_text(whole)
    rows = [[f"walk{n}", f"a person walks {n}"] for n in range(8)]
    write_captions(mocap, [*rows, ["ghost", "a person walks"], ["walk7", ""], ["walk7", "a#b"]])
    report = build_dataset(options_for(mocap, mirror=False))
    assert sorted(report.skipped) == [f"take0/walk{n}.bvh" for n in (0, 2, 4)]
    assert "damaged" in report.skipped["take0/walk0.bvh"]
    assert "Pelvis" in report.skipped["take0/walk2.bvh"]
    assert "fewer than 40" in report.skipped["take0/walk4.bvh"]
    assert (report.files, report.too_short) == (9, 1)
    assert report.files_without_caption == ["take0/unheard.bvh"]
    assert report.captions_without_file == ["ghost"]
    assert len(report.unusable_lines) == 2
    assert report.unusable_lines[0] == "line 11: the caption is empty"
    assert json.loads((mocap / "out" / "report.json").read_text())["skipped"] == report.skipped
    for count in ("1 files skipped: too short", "2 files skipped: not usable"):
        assert count in report.summary()


def test_nothing_is_left_behind_when_all_files_fail(mocap):
    for path in (mocap / "bvh").rglob("*.bvh"):
        path.write_text("HIERARCHY")
    with pytest.raises(UserError, match=r"none of 8 files.*walk0\.bvh.*MOTION"):
        build_dataset(options_for(mocap))
    assert sorted(path.name for path in mocap.iterdir()) == ["bvh", "captions.csv"]


def test_pieces_of_a_long_clip_are_numbered(mocap):
    (mocap / "bvh" / "take0" / "walk0.bvh").write_text(bvh_text(frames=400, turn=5.0))
    write_captions(mocap, [["walk0", "a person walks and turns left"]])
    report = build_dataset(options_for(mocap, long="split"))
    assert read_names(mocap, "train") == ["000000_1", "M000000_1", "000000_2", "M000000_2"]
    assert report.cut == ["take0/walk0.bvh"]


# Six files of one's own


def six_files(folder, rig="mixamo", **changes):
    """A folder of six takes of one rig and their captions; `changes` replace whole files."""
    (folder / "bvh").mkdir()
    for number in range(6):
        text = changes.get(f"take{number}", bvh_text(rig, turn=10.0 * number))
        (folder / "bvh" / f"take{number}.bvh").write_text(text)
    write_captions(folder, [[f"take{n}", f"a person walks along path {n}"] for n in range(6)])


def run(monkeypatch, folder, *words) -> None:
    own = {"bvh_dir": "bvh", "captions": "captions.csv", "out": "out"}
    paths = [word for name, place in own.items() for word in (f"--{name}", str(folder / place))]
    monkeypatch.setattr(sys, "argv", ["from_bvh", *paths, *words])
    main()


@pytest.mark.parametrize("rig", RIGS)
def test_six_files_of_any_rig_fill_all_splits(tmp_path, monkeypatch, capsys, rig):
    six_files(tmp_path, rig)
    run(monkeypatch, tmp_path)
    output = capsys.readouterr().out
    assert "12 clips (train 6, val 4, test 2) from 6 files" in output
    assert "warning: train has 6 clips" in output
    assert "--batch_size 6 or less" in output
    assert "warning: val has 4 clips of 2 distinct meanings" in output
    sources = {}
    for split, count in (("train", 6), ("val", 4), ("test", 2)):
        data = open_dataset("own", split, data_dir=str(tmp_path / "out"))
        batch = next(make_loader(data, count, shuffle=False))
        assert torch.isfinite(batch.motion).all()
        assert batch.motion.abs().max() < 100
        sources[split] = {name.removeprefix("M") for name in batch.names}
    assert sum(map(len, sources.values())) == len(set.union(*sources.values())) == 6


def test_files_that_fail_leave_the_splits_filled(tmp_path, monkeypatch, capsys):
    broken = {f"take{number}": "HIERARCHY" for number in (0, 2, 5)}
    six_files(tmp_path, **broken)
    run(monkeypatch, tmp_path)
    assert "6 clips (train 2, val 2, test 2) from 6 files" in capsys.readouterr().out


def test_a_split_without_files_is_warned_of_with_the_option(tmp_path, monkeypatch, capsys):
    six_files(tmp_path)
    run(monkeypatch, tmp_path, "--val_share", "0")
    assert "warning: val has no usable clip" in (output := capsys.readouterr().out)
    assert "--val_share above 0" in output


def test_a_joint_map_of_absent_joints_is_one_clear_line(tmp_path, monkeypatch, capsys):
    six_files(tmp_path)
    lines = [f"{target}: Hips" for target in HUMANML.joint_names[:-1]]
    (tmp_path / "map.yaml").write_text("\n".join([*lines, "right_wrist: Hand_R"]))
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, tmp_path, "--joint_map", str(tmp_path / "map.yaml"))
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "none of 6 files is usable; take0.bvh: the joint map map.yaml names Hand_R" in line
    assert "Joints of the file: Hips, Spine" in line
    assert not (tmp_path / "out").exists()


# Mistakes of the user


def test_wrong_folders_and_tables_are_told(mocap):
    options = options_for(mocap)
    (mocap / "empty").mkdir()
    cases = [
        ({"bvh_dir": str(mocap / "nowhere")}, "is not a folder"),
        ({"bvh_dir": str(mocap / "empty")}, "holds no .bvh file"),
        ({"captions": str(mocap / "none.csv")}, "cannot be read"),
        ({"joint_map": str(mocap / "none.yaml")}, "cannot be read"),
        ({"split_file": str(mocap / "none.csv")}, "cannot be read"),
    ]
    for change, message in cases:
        with pytest.raises(UserError, match=message):
            build_dataset(Options(**(vars(options) | change)))
    with pytest.raises(UserError, match="nothing for training"):
        Options(val_share=0.5, test_share=0.5).validate()
    with pytest.raises(UserError, match="--unit furlong"):
        Options(unit="furlong").validate()


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        ("file,text", ["walk0", "walks"], "lacks the column caption"),
        ("file,caption", ["walk0", ""], "no usable line"),
        ("file,caption", ["other", "walks"], "no file in"),
        ("file,caption,split", ["walk0", "walks", "dev"], "split 'dev' is none of"),
        ("file,caption,facts", ["walk0", "walks", "{"], "facts is not valid JSON"),
        ("file,caption,facts", ["walk0", "walks", "[1]"], "list of"),
        ("file,caption,facts", ["walk0", "walks", '[["mood", 1]]'], "'mood' is unknown"),
        ("file,caption,facts", ["walk0", "walks", 50_000 * "["], "facts is not valid JSON"),
        ("file,caption,facts", ["walk0", "walks", 5_000 * "1"], "facts is not valid JSON"),
        ("file,caption,labels", ["walk0", "walks", "[1]"], "labels must be"),
        ("file,caption", ["walk0", 300 * "walks "], "longer than 1000 characters"),
        ("file,caption", ["walk0", 50_000 * "walks "], "not a readable CSV file"),
    ],
)
def test_caption_tables_are_checked(mocap, columns, row, message):
    write_captions(mocap, [row], columns)
    with pytest.raises(UserError, match=message):
        build_dataset(options_for(mocap))


def test_file_names_match_by_path_or_base_name(tmp_path):
    paths = [tmp_path / "a" / "x.bvh", tmp_path / "b" / "x.bvh", tmp_path / "b" / "y.BVH"]
    names = ["a/x.bvh", "b/x", "y", "y.BVH", "z"]
    found = match_files(names, paths, tmp_path)
    assert found == dict(zip(names, [paths[0], paths[1], paths[2], paths[2]], strict=False))
    with pytest.raises(UserError, match="'x' fits 2 files"):
        match_files(["x"], paths, tmp_path)


def test_an_existing_folder_is_not_lost(mocap):
    out = mocap / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("keep me")
    with pytest.raises(UserError, match="--overwrite"):
        build_dataset(options_for(mocap))
    with pytest.raises(UserError, match=r"no dataset\.json"):
        build_dataset(options_for(mocap, overwrite=True))
    assert (out / "thesis.txt").read_text() == "keep me"


def test_one_caption_cannot_mean_two_things(mocap, monkeypatch):
    """Which is told before any file is converted."""
    rows = [[f"walk{n}", "a person walks", f"meaning {n}"] for n in range(2)]
    write_captions(mocap, rows, "file,caption,meaning")
    monkeypatch.setattr("prepare.bvh.dataset.run_jobs", None)
    with pytest.raises(UserError, match="two different notes"):
        build_dataset(options_for(mocap))


def test_side_words_in_labels():
    assert swap_side_words("walk-turn-left") == "walk-turn-right"
    assert swap_side_words("hand_right=raise_left") == "hand_left=raise_right"
    assert swap_side_words("upright cleft") == "upright cleft"


@needs_mocap
def test_recorded_samples_become_a_dataset(tmp_path):
    files = sorted((MOCAP_DIR / "samples").glob("*.bvh"))
    write_captions(tmp_path, [[path.name, f"a person moves {path.stem}"] for path in files])
    options = options_for(tmp_path, pad_short=True, val_share=0.0, test_share=0.0)
    options.bvh_dir = str(MOCAP_DIR / "samples")
    report = build_dataset(options)
    assert report.padded == ["dataset-1_walk_normal_002.bvh"]
    assert report.clips["train"] == 12
    motions = [np.load(path) for path in (tmp_path / "out" / "new_joints").glob("*.npy")]
    for motion in motions:
        assert motion[..., 1].min() > -0.02
        assert 0.8 < motion[0, 0, 1] < 1.1
        assert np.abs(motion[0, 0, [0, 2]]).max() < 1e-5
