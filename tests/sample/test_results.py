import pickle

import numpy as np
import pytest

from sample.results import KEYS, Results, load_results, save_results
from utils.errors import UserError


@pytest.fixture
def results() -> Results:
    motion = np.random.default_rng(0).normal(size=(6, 22, 3, 8)).astype(np.float32)
    text = ["a man walks", "sie läuft"] * 3
    return Results(motion, text, np.array([8, 5] * 3), num_samples=2, num_repetitions=3)


def write_object(path, value) -> None:
    np.save(path, np.array(value, dtype=object), allow_pickle=True)


def test_what_is_written_is_read(tmp_path, results: Results) -> None:
    loaded = load_results(save_results(tmp_path, results))
    np.testing.assert_array_equal(loaded.motion, results.motion)
    np.testing.assert_array_equal(loaded.lengths, results.lengths)
    assert loaded.motion.dtype == np.float32
    assert (loaded.text, loaded.num_samples, loaded.num_repetitions) == (results.text, 2, 3)
    assert (tmp_path / "results.txt").read_text(encoding="utf-8").splitlines() == results.text
    assert (tmp_path / "results_len.txt").read_text().split() == ["8", "5"] * 3


def test_the_file_is_upstreams_dictionary(tmp_path, results: Results) -> None:
    content = np.load(save_results(tmp_path, results), allow_pickle=True).item()
    assert set(content) == set(KEYS)
    np.testing.assert_array_equal(content["motion"], results.motion)


def test_rows_are_repetition_major_and_joints_are_cut(results: Results) -> None:
    assert results.row(sample=1, repetition=2) == 5
    joints = results.joints(5)
    assert joints.shape == (5, 22, 3)
    np.testing.assert_array_equal(joints[4, 3], results.motion[5, 3, :, 4])


@pytest.mark.parametrize("protocol", [3, 4])
def test_other_layouts_of_the_same_content_are_read(tmp_path, results: Results, protocol) -> None:
    """Column-major and big-endian arrays, NumPy scalars, and both protocols that NumPy writes."""
    content = {
        "motion": np.asfortranarray(results.motion.astype(">f4")),
        "text": results.text,
        "lengths": results.lengths.astype(np.int32),
        "num_samples": np.int64(2),
        "num_repetitions": 3,
    }
    array = np.array(content, dtype=object)
    with open(tmp_path / "results.npy", "wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(array, file, protocol=protocol)
    loaded = load_results(tmp_path / "results.npy")
    np.testing.assert_array_equal(loaded.motion, results.motion)
    np.testing.assert_array_equal(loaded.lengths, results.lengths)
    assert loaded.num_samples == 2


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys) -> None:
    write_object(tmp_path / "results.npy", {"motion": Payload()})
    with pytest.raises(UserError, match="asks for"):
        load_results(tmp_path / "results.npy")
    assert "code ran" not in capsys.readouterr().out


def test_object_arrays_inside_are_refused(tmp_path, results: Results) -> None:
    content = {key: getattr(results, key) for key in KEYS}
    write_object(tmp_path / "results.npy", content | {"motion": np.array([None, 1], object)})
    with pytest.raises(UserError, match="do not fit together"):
        load_results(tmp_path / "results.npy")


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": np.array([8, 5, 8, 5, 8, 9])},
        {"lengths": np.array([8, 5])},
        {"num_samples": 4},
        {"text": ["one"]},
        {"text": [1] * 6},
        {"motion": np.zeros((6, 22, 8), np.float32)},
    ],
)
def test_contents_that_disagree_are_refused(tmp_path, results: Results, change) -> None:
    write_object(tmp_path / "results.npy", {key: getattr(results, key) for key in KEYS} | change)
    with pytest.raises(UserError, match="do not fit together"):
        load_results(tmp_path / "results.npy")


@pytest.mark.parametrize("value", [{"motion": 1}, [1, 2], "text", None])
def test_other_objects_are_refused(tmp_path, value) -> None:
    write_object(tmp_path / "results.npy", value)
    with pytest.raises(UserError, match=r"results\.npy"):
        load_results(tmp_path / "results.npy")


def test_other_files_are_refused(tmp_path, results: Results) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_results(tmp_path / "missing.npy")
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "empty.npy").write_bytes(b"")
    whole = save_results(tmp_path, results).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[: len(whole) // 2])
    for name in ("plain", "empty", "cut"):
        with pytest.raises(UserError, match=name):
            load_results(tmp_path / f"{name}.npy")
