"""Motions from tokens: the folder of a base transformer as a checkpoint, and drawn lengths."""

import shutil
from pathlib import Path

import pytest

from model.checkpoint_files import find_checkpoint, label_of, read_model_args, run_folder
from sample.generation import Options, generate
from sample.results import load_results
from tests.model.momask.tiny import write_folders
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "kit")


def run(folder: Path, **changes) -> Path:
    settings = {"text_prompt": "a man waves", "video": "none", "num_repetitions": 6} | changes
    return generate(Options(model_path=str(folder), device="cpu", **settings))


def test_lengths_are_drawn_and_stored(folder: Path) -> None:
    found = run(folder, motion_length=0.0)
    assert found == folder / "samples_base_latest_seed10_a_man_waves"
    results = load_results(found / "results.npy")
    assert len(set(results.lengths.tolist())) > 1, "each repetition draws a length"
    assert all(length % 4 == 0 and 4 <= length <= 196 for length in results.lengths)
    assert results.motion.shape == (6, 21, 3, max(results.lengths))
    again = load_results(run(folder, motion_length=0.0, overwrite=True) / "results.npy")
    assert (again.motion == results.motion).all()


def test_a_given_length_is_cut_to_whole_tokens(folder: Path) -> None:
    results = load_results(run(folder, motion_length=1.9) / "results.npy")  # 23 frames of KIT
    assert results.lengths.tolist() == [20] * 6
    assert results.motion.shape[-1] == 20


def test_without_a_length_estimator_none_is_drawn(folder: Path) -> None:
    shutil.rmtree(folder.parent / "length_estimator")
    with pytest.raises(UserError, match="no length estimator; pass --motion_length"):
        run(folder, motion_length=0.0)


def test_a_folder_is_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model" / "latest.tar"
    for path in (folder, weights):
        assert find_checkpoint(path) == weights
        assert read_model_args(path) == {"family": "momask", "dataset": "kit"}
        assert run_folder(path) == folder
    assert label_of(weights) == "latest"
    with pytest.raises(UserError, match=r"rvq/model/latest\.tar does not exist"):
        find_checkpoint(folder.parent / "rvq")
