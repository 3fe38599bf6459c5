import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from data_loaders.humanml import resolve_dataset
from prepare.inspect import Options, main
from prepare.procedural import dataset as synthetic
from prepare.survey import survey_dataset
from utils.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("inspect") / "mine"
    synthetic.build(synthetic.Options(out=str(out), num_clips=60, captions_per_clip=2))
    return out


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made, tmp_path / "mine")


def warnings(folder) -> str:
    return "\n".join(survey_dataset(resolve_dataset("mine", str(folder))).warnings)


def names(folder, split) -> list[str]:
    return (folder / f"{split}.txt").read_text().split()


def test_counts_are_those_of_the_folder(made):
    survey = survey_dataset(resolve_dataset("mine", str(made)))
    for split, found in survey.splits.items():
        assert len(found.entries) == len(names(made, split))
        frames = [len(np.load(made / "new_joint_vecs" / f"{n}.npy")) for n in names(made, split)]
        assert sorted(found.seconds(20) * 20) == sorted(frames)
        assert len(found.captions) == 2 * len(found.entries)
    train = survey.splits["train"]
    assert train.families.total() == len(train.entries)
    assert len(survey.table().splitlines()) == 4


def test_small_splits_are_warned_of(folder):
    """Numbers are those of trainings: 64 or 32 clips a step, pools of 32, of at least 2."""
    clips, ids = len(names(folder, "train")), names(folder, "train")
    assert f"--batch_size {clips} or less" in warnings(folder)
    (folder / "train.txt").write_text("\n".join(ids * 2))
    assert "--batch_size" not in warnings(folder)
    (folder / "val.txt").write_text(ids[0])
    assert "val has 1 clips that state one thing" in warnings(folder)
    (folder / "val.txt").write_text("\n".join(ids[:20]))
    assert "ranks them in pools of" in warnings(folder)
    (folder / "val.txt").write_text("")
    assert "val has no usable clip" in warnings(folder)
    (folder / "test.txt").write_text("\n".join(names(folder, "all")[:32]))
    assert "R-Precision" not in warnings(folder)


def test_a_mirror_image_in_another_split_is_warned_of(folder):
    assert "mirror images" not in warnings(folder)
    first = names(folder, "train")[0]
    with open(folder / "test.txt", "a") as file:
        file.write(f"M{first}\n")
    assert f"1 clips or their mirror images are both in train and in test ({first})" in warnings(
        folder
    )
    assert "test: 1 clips are left out: no motion file" in warnings(folder)


def test_statistics_of_other_data_are_warned_of(folder):
    assert "Mean.npy" not in warnings(folder)
    mean = np.load(folder / "Mean.npy")
    np.save(folder / "Mean.npy", mean + np.load(folder / "Std.npy"))
    assert "means differ by up to 1 deviations" in warnings(folder)
    np.save(folder / "Mean.npy", mean[:251])
    assert "different length" in warnings(folder)


def test_motions_of_no_person_are_warned_of(folder):
    path = folder / "new_joint_vecs" / f"{names(folder, 'val')[0]}.npy"
    np.save(path, 1000 * np.load(path))
    assert f"1 clips hold motions of no person; {path.stem}: at 0.00 s" in warnings(folder)


def run(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", *map(str, words)])
    main()


def test_the_command_tells_and_draws(made, monkeypatch, capsys, tmp_path):
    picture = tmp_path / "clips.png"
    run(monkeypatch, made, "--output", picture)
    output = capsys.readouterr().out
    assert "humanml skeleton" in output
    assert "warning: train has" in output
    with Image.open(picture) as image:
        assert image.width == 4 * 240
        assert image.height > 6 * 240
        assert len(image.convert("RGB").getcolors(maxcolors=1_000_000)) > 100
    first = picture.read_bytes()
    run(monkeypatch, "--dataset", made, "--output", picture, "--seed", 1)
    assert picture.read_bytes() != first


def test_mistakes_are_told(monkeypatch, capsys, tmp_path):
    with pytest.raises(UserError, match=r"must end in one of \.png, \.gif, \.mp4"):
        Options(output="clips.bmp").validate()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "nothing")
    assert stopped.value.code == 2
    assert "error: dataset nothing: folder" in capsys.readouterr().err
