"""What the check of a TMR model says: of which dataset, and of which captions."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import text_motion_sim as script
from data_loaders.humanml import MotionDataset, open_dataset
from model.seam import Samples
from tests.data_loaders.datasets import caption_line, write_dataset
from utils.errors import UserError

CLIPS = [f"{number:06d}" for number in range(1, 17)]
NAMES = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
WORDS = [f"{first} {second}" for first in ("walks", "jumps") for second in NAMES]


@pytest.fixture
def data(tmp_path) -> MotionDataset:
    """Every clip has one caption; its features tell its number."""
    captions = {name: caption_line(words) for name, words in zip(CLIPS, WORDS, strict=True)}
    write_dataset(tmp_path / "mine", dict.fromkeys(CLIPS, 60), captions)
    return open_dataset("mine", "test", str(tmp_path / "mine"), random_items=False)


class Reader:
    """A reward that knows, or does not know, which caption belongs to which clip."""

    def __init__(self, knows: bool) -> None:
        self.knows = knows

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        numbers = (raw.x[:, 0, 0] // 1000).int().tolist()
        own = [WORDS[number - 1] == c for number, c in zip(numbers, captions, strict=True)]
        return torch.tensor([0.9 if right and self.knows else 0.4 for right in own])


@pytest.mark.parametrize(("knows", "verdict"), [(True, "is right"), (False, "WRONG")])
def test_it_names_the_dataset_and_shows_both_captions(data, capsys, knows, verdict) -> None:
    options = script.Options(num_pairs=16)
    assert script.check(Reader(knows), data, options) is knows
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mine, test split"
    shown = [line[15:].split(" | ") for line in lines[2 : 2 + script.SHOWN]]
    assert all(own in WORDS and other in WORDS and own != other for own, other in shown)
    assert verdict in lines[-1]


def test_other_motions_are_of_captions_that_state_something_else() -> None:
    assert script.other_rows(["a", "a", "b", "a"]) == [2, 2, 3, 2]
    with pytest.raises(UserError, match="state the same"):
        script.other_rows(["a", "a"])


def test_a_dataset_is_made_where_none_is_on_disk(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    made = SimpleNamespace(options=None)

    def build(options) -> None:
        made.options = options
        lines = {name: caption_line(words) for name, words in zip(CLIPS, WORDS, strict=True)}
        write_dataset(tmp_path / "made", dict.fromkeys(CLIPS, 60), lines)
        (tmp_path / "made").rename(options.out)

    monkeypatch.setattr(script, "build", build)
    assert len(script.open_any_dataset(script.Options(seed=3))) == len(CLIPS)
    assert made.options.seed == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["no dataset humanml on disk", "no dataset synthetic on disk"]
    assert lines[2].startswith("making the embedded dataset")
