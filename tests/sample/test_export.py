"""The script of export: what it reads, what it writes, what it refuses."""

import sys
from pathlib import Path

import numpy as np
import torch

from data_loaders.bvh import parse_bvh
from data_loaders.features import features_to_joints, process_joints
from data_loaders.skeleton import HUMANML, KIT
from sample.export import main
from sample.exported import load_motions
from sample.results import Results, save_results
from tests.data_loaders.bodies import moving


def results(folder: Path, frames: int = 20, broken: bool = False) -> Path:
    motion = np.stack([moving(20, seed).numpy() for seed in range(4)]).astype(np.float32)
    if broken:
        motion[3, 7] = np.nan
    content = Results(
        motion.transpose(0, 2, 3, 1), ["walk", "<b>wave</b>"] * 2, np.array([20, frames] * 2), 2, 2
    )
    return save_results(folder, content)


def run(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_results_become_files_named_as_the_videos(tmp_path, monkeypatch, capsys):
    path = results(tmp_path, frames=12)
    assert run(monkeypatch, path, "--format", "bvh", "npz", "--fps", "40") == 0
    stems = [f"sample{s:02d}_rep{r:02d}" for s in (0, 1) for r in (0, 1)]
    names = {f"{stem}{suffix}" for stem in stems for suffix in (".bvh", ".npz")}
    assert {file.name for file in (tmp_path / "export").iterdir()} == names
    bvh = parse_bvh(tmp_path / "export" / "sample01_rep00.bvh")
    assert (len(bvh.motion), bvh.frame_time) == (23, 1 / 40)
    with np.load(tmp_path / "export" / "sample01_rep00.npz", allow_pickle=False) as found:
        assert found["caption"] == "<b>wave</b>"
        assert found["joints"].shape == (23, 22, 3)
        assert found["rotations"].shape == (23, 22, 4)
        assert found["contacts"].shape == (23, 4)
        assert found["contacts"].dtype == bool
        joints = moving(20, 1).numpy()[:12]
        assert np.linalg.norm(found["joints"][::2] - joints, axis=-1).mean() < 0.01
        np.testing.assert_array_equal(found["parents"], HUMANML.parents)
    assert "mean error [cm]" in capsys.readouterr().out


def test_features_and_joints_of_both_skeletons_are_read(tmp_path):
    features = process_joints(moving(30)).features
    np.save(tmp_path / "f.npy", features.numpy())
    (motion,) = load_motions(str(tmp_path / "f.npy"))
    np.testing.assert_allclose(motion.joints, features_to_joints(features).numpy(), atol=1e-5)
    assert (motion.name, motion.skeleton) == ("f", HUMANML)
    for name, shape, skeleton in (
        ("k", (25, 251), KIT), ("j", (25, 21, 3), KIT), ("h", (25, 22, 3), HUMANML),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).standard_normal(shape))
        (motion,) = load_motions(str(tmp_path / f"{name}.npy"))
        assert motion.skeleton is skeleton
        assert motion.joints.shape == (25, skeleton.num_joints, 3)


def test_kits_millimetres_become_centimetres(tmp_path, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    np.save(tmp_path / "k.npy", 300 * torch.randn(5, 21, 3, generator=rng).numpy())
    assert run(monkeypatch, tmp_path / "k.npy") == 0
    bvh = parse_bvh(tmp_path / "export" / "k.bvh")
    assert 10 < np.linalg.norm(bvh.offsets[1]) < 100


def refused(capsys, monkeypatch, *words: object) -> str:
    assert run(monkeypatch, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_exported_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    arrays = {"flat": (263,), "wide": (20, 100), "one": (1, 22, 3), "none": (0, 22, 3)}
    for name, shape in arrays.items():
        np.save(tmp_path / f"{name}.npy", np.ones(shape))
    (tmp_path / "text.npy").write_text("not an array")
    out = tmp_path / "out"
    for name, message in (
        ("flat", "holds [263] float64"),
        ("wide", "holds [20, 100] float64"),
        ("one", "needs two frames or more, not 1"),
        ("none", "needs two frames or more, not 0"),
        ("text", "is not a results.npy"),
        ("missing", "does not exist"),
    ):
        words = (tmp_path / f"{name}.npy", "--output_dir", out)
        assert message in refused(capsys, monkeypatch, *words)
    assert not any(out.rglob("*.*"))


def test_nothing_is_written_where_one_motion_is_broken(tmp_path, monkeypatch, capsys):
    path = results(tmp_path, broken=True)
    line = refused(capsys, monkeypatch, path, "--output_dir", tmp_path / "out")
    assert "sample01_rep01: frame 7 holds NaN" in line
    assert not any((tmp_path / "out").rglob("*.*"))


def test_options_that_do_not_fit_are_told(tmp_path, monkeypatch, capsys):
    path = results(tmp_path)
    assert "choose one of bvh" in refused(capsys, monkeypatch, path, "--format", "fbx")
    assert "too small" in refused(capsys, monkeypatch, path, "--fps", "-1")
    assert "--smpl_path (not given)" in refused(capsys, monkeypatch, path, "--format", "smpl")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    words = (path, "--output_dir", tmp_path / "full")
    assert "already holds files" in refused(capsys, monkeypatch, *words)
    np.save(tmp_path / "k.npy", np.random.default_rng(0).standard_normal((5, 21, 3)))
    words = (tmp_path / "k.npy", "--skeleton", "mixamo")
    assert "KIT motions 21" in refused(capsys, monkeypatch, *words)
