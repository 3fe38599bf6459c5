import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.facts import Fact
from data_loaders.features import ProcessedMotion, feature_slices, process_joints
from data_loaders.skeleton import HUMANML
from prepare.plausible import ImplausibleMotion, check_plausible
from prepare.write_dataset import ClipEntry, DatasetWriter, NotedCaption, collect_notes
from tests.prepare.motions import perform
from utils.errors import UserError

COLUMNS = feature_slices(HUMANML)


@pytest.fixture(scope="module")
def motion() -> ProcessedMotion:
    return process_joints(perform("walk", seed=0)[0])


def entry(name: str, text: str = "a person walks", **note) -> ClipEntry:
    return ClipEntry(name, "train", (NotedCaption.of(text, **note),))


def write(out, motion, **settings) -> None:
    with DatasetWriter(out, **settings) as writer:
        writer.add(entry("000000"), motion)


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def left_by(process: int, out: Path, kind: str) -> Path:
    """The folder that a process of this number leaves beside `out` when it is killed."""
    with pytest.raises(KeyError), DatasetWriter(out) as writer:
        raise KeyError
    own = writer.folder.name
    return out.with_name(own.replace("partial", kind).removesuffix(str(os.getpid())) + str(process))


def test_leftovers_of_killed_runs_go_away_and_those_of_running_ones_stay(tmp_path, motion, ended):
    out = tmp_path / "mine"
    dead, running = left_by(ended, out, "partial"), left_by(os.getppid(), out, "partial")
    other = tmp_path / ".mine.partial.another-machine.1"
    for folder in (dead, running, other):
        (folder / "texts").mkdir(parents=True)
    write(out, motion)
    assert not dead.exists()
    assert running.is_dir()
    assert other.is_dir()


def test_a_dataset_half_replaced_goes_back_to_its_place(tmp_path, motion, ended):
    out = tmp_path / "mine"
    old = left_by(ended, out, "old")
    write(old, motion)
    with pytest.raises(UserError, match="already holds files; add --overwrite"):
        DatasetWriter(out)
    assert (out / "dataset.json").is_file()
    assert not old.exists()


def change(motion: ProcessedMotion, columns: slice, value: float) -> ProcessedMotion:
    features = motion.features.clone()
    features[7, columns] = value
    return ProcessedMotion(
        features, motion.global_positions, motion.ric_positions, motion.root_velocity
    )


@pytest.mark.parametrize(
    ("columns", "value", "message"),
    [
        (COLUMNS.rotations, float("nan"), "at 0.35 s a feature is nan"),
        (COLUMNS.root_angular, float("inf"), "at 0.35 s a feature is inf"),
        (COLUMNS.root_height, 50.0, "at 0.35 s the root's height is 50 m"),
        (COLUMNS.positions, 8.0, "at 0.35 s a joint is beside the root by 11.31 m"),
        (COLUMNS.velocities, 2.0, "at 0.35 s a joint moves at 69.28 m/s"),
    ],
)
def test_what_no_person_does_is_not_written(tmp_path, motion, columns, value, message):
    with pytest.raises(ImplausibleMotion, match=message):
        write(tmp_path / "mine", change(motion, columns, value))
    assert list(tmp_path.iterdir()) == []


def test_what_people_do_is_plausible():
    for action in ("run", "jump", "throw-left", "kick-right"):
        check_plausible(process_joints(perform(action, seed=1)[0]).features, HUMANML)
    check_plausible(torch.zeros(3, 263), HUMANML)


def test_one_text_has_one_note():
    left, right = Fact("turn_side", "left"), Fact("turn_side", "right")
    first = entry("000000", "a person turns left", facts=(left,))
    assert set(collect_notes([first, first.mirrored()])) == {
        "a person turns left",
        "a person turns right",
    }
    second = entry("000001", "a person turns right", facts=(right,), meaning="other")
    with pytest.raises(UserError, match="'a person turns right' is given with two"):
        collect_notes([first, second, first.mirrored()])


def test_arrays_are_what_was_given(tmp_path, motion):
    write(tmp_path / "mine", motion)
    features = np.load(tmp_path / "mine" / "new_joint_vecs" / "000000.npy")
    np.testing.assert_array_equal(features, motion.features.numpy())
    with pytest.raises(UserError, match="--overwrite"):
        write(tmp_path / "mine", motion)
    write(tmp_path / "mine", motion, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
