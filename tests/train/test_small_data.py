"""Trainings on a handful of clips: they train, or tell in one line what to change."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_loaders.captions import Caption
from data_loaders.humanml import Entry
from tests.train.scripts import NETWORK, Workspace, read_metrics, run_main
from train.data import validation_pool
from utils.files import read_json

LOOP = "--device cpu --train_platform_type NoPlatform --num_steps 2 --val_interval 1 --batch_size 2"
OWN = {
    "train_tmr": NETWORK,
    "train_mdm": f"{NETWORK} --diffusion_steps 4 --mask_frames",
    "train_evaluators": (
        "--movement_hidden 8 --movement 8 --text_hidden 8 --motion_hidden 8 --embedding 6 "
        "--movement_batch_size 16 --movement_steps 1"
    ),
}


def first_clips(workspace: Workspace, folder: Path, train: int, val: int) -> Path:
    """A copy of the tiny dataset whose splits have so many clips."""
    shutil.copytree(workspace.data, folder)
    names = (folder / "all.txt").read_text().split()
    (folder / "train.txt").write_text("\n".join(names[:train]))
    (folder / "val.txt").write_text("\n".join(names[train : train + val]))
    return folder


def run(script: str, data: Path, save_dir: Path, *changes: str) -> None:
    folders = ["--dataset", "tiny", "--data_dir", str(data), "--save_dir", str(save_dir)]
    run_main(f"train.{script}", [*folders, *LOOP.split(), *OWN[script].split(), *changes])


@pytest.mark.parametrize("script", OWN)
def test_six_clips_are_enough(workspace: Workspace, tmp_path, capsys, script: str) -> None:
    data = first_clips(workspace, tmp_path / "data", train=4, val=2)
    run(script, data, tmp_path / "run")
    warned = "warning: val split has 2 distinct meanings: retrieval in pools of 2"
    assert capsys.readouterr().out.count(warned) == (script != "train_mdm")
    if script == "train_evaluators":
        report = read_json(tmp_path / "run" / "real_figures.json")
        assert report["R-Precision top 2"] == 1
        assert "FID of two halves" not in report
    if script == "train_tmr":
        (score, _) = [m["val/score"] for m in read_metrics(tmp_path / "run") if "val/score" in m]
        assert 0 <= score <= 1


@pytest.mark.parametrize(("clips", "meanings", "pool"), [(40, 40, 32), (40, 12, 12), (2, 2, 2)])
def test_a_pool_is_of_32_meanings_or_of_all(capsys, clips: int, meanings: int, pool: int) -> None:
    texts = [Caption(f"caption {i}", ()) for i in range(clips)]
    val = SimpleNamespace(
        entries=[Entry(f"{i}", 0, 40, (text,)) for i, text in enumerate(texts)],
        meanings=lambda captions: [str(int(c.split()[1]) % meanings) for c in captions],
    )
    assert validation_pool(val) == pool
    warned = f"warning: val split has {meanings} distinct meanings: retrieval in pools of {pool}"
    assert capsys.readouterr().out == (f"{warned}\n" if pool < 32 else "")


@pytest.mark.parametrize("script", ["train_tmr", "train_evaluators"])
def test_a_val_split_of_one_meaning_is_refused(workspace, tmp_path, capsys, script: str) -> None:
    data = first_clips(workspace, tmp_path / "data", train=5, val=1)
    with pytest.raises(SystemExit) as ended:
        run(script, data, tmp_path / "run")
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith("error: the captions of the val split (1 clips) state one thing")
    assert f"from train.txt to val.txt in {data}" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", OWN)
def test_a_batch_that_the_clips_do_not_fill_is_refused(
    workspace: Workspace, tmp_path, capsys, script: str
) -> None:
    data = first_clips(workspace, tmp_path / "data", train=4, val=2)
    with pytest.raises(SystemExit):
        run(script, data, tmp_path / "run", "--batch_size", "64")
    error = capsys.readouterr().err
    assert error.endswith("exceeds the 4 clips of the train split; use --batch_size 4 or less\n")
    assert not (tmp_path / "run").exists()
