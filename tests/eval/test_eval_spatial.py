"""Left and right: what counts, and what a blind and a perfect judge score."""

import numpy as np
import pytest
import torch

from data_loaders.humanml import open_dataset
from eval.eval_spatial import Options, discrimination, evaluate, format_rows, measure, sided
from eval.motion_sets import MotionSet, real_motions
from model.seam import Samples
from prepare.procedural import dataset as synthetic
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.tmr.tiny import tiny_tmr
from utils.errors import UserError

CAPTIONS = ["a man raises the left arm", "a man walks", "he turns clockwise", "Right hand up"]


def motions(captions: list[str] = CAPTIONS) -> MotionSet:
    lengths = torch.full((len(captions),), 8)
    return MotionSet(torch.zeros(len(captions), 8, 3), lengths, captions, captions)


class SideReward:
    """Likes the captions that hold a word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def score(self, raw: Samples, captions: list[str]) -> torch.Tensor:
        return torch.tensor([float(self.word in caption) for caption in captions])


def test_only_captions_that_change_when_swapped_count() -> None:
    assert sided(motions()).captions == [CAPTIONS[0], CAPTIONS[2], CAPTIONS[3]]
    with pytest.raises(UserError, match="no caption"):
        sided(motions(["a man walks"]))


def test_right_wrong_and_blind_rewards() -> None:
    one = motions([CAPTIONS[0]])
    assert discrimination(SideReward("left"), one).tolist() == [1]
    assert discrimination(SideReward("right"), one).tolist() == [0]
    assert discrimination(SideReward("arm"), one).tolist() == [0.5]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("spatial")
    synthetic.build(synthetic.Options(out=str(root / "data"), num_clips=40, captions_per_clip=1))
    names = (root / "data" / "all.txt").read_text()
    (root / "data" / "val.txt").write_text(names)
    tiny_tmr(features=263).save(root / "reward")
    write_tiny_checkpoint(root / "mdm")
    return root


def test_stated_sides_hold_on_real_motions(place) -> None:
    data = open_dataset("tiny", "val", str(place / "data"), random_items=False)
    real = sided(real_motions(data, 16))
    good = measure(SideReward("left"), real, data)
    assert good.sides > 0.9
    assert good.captions == len(real.captions) > 5


def test_broken_motions_are_counted_and_left_out(place) -> None:
    data = open_dataset("tiny", "val", str(place / "data"), random_items=False)
    real = sided(real_motions(data, 16))
    real.motions[0, 2, 5] = torch.nan
    found = measure(SideReward("left"), real, data)
    assert (found.broken, found.captions) == (1, len(real.captions) - 1)
    assert np.isfinite(found.discrimination)
    real.motions[:] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        measure(SideReward("left"), real, data)


def test_the_script_measures_real_and_generated_motions(place) -> None:
    rows = evaluate(
        Options(
            reward_path=str(place / "reward"),
            model_path=[str(place / "mdm" / "model000000007.pt")],
            names=["base"],
            dataset="tiny",
            data_dir=str(place / "data"),
            device="cpu",
        )
    )
    assert list(rows) == ["real", "base"]
    assert rows["real"].captions == rows["base"].captions
    assert rows["base"].sides < rows["real"].sides
    assert format_rows(rows).splitlines()[-1].startswith("| base | ")


def test_names_must_match_the_checkpoints() -> None:
    with pytest.raises(UserError, match="1 names for 2"):
        Options(model_path=["a", "b"], names=["a"]).validate()
    with pytest.raises(UserError, match="one name twice"):
        Options(model_path=["a", "b"], names=["a", "a"]).validate()
