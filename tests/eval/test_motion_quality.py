"""The judge, the feet and the jerk: closed forms, and the whole beside the benchmark."""

from pathlib import Path

import pytest
import torch

from data_loaders.features import features_to_joints
from data_loaders.humanml import MotionDataset, open_dataset
from data_loaders.skeleton import HUMANML
from eval.humanml_benchmark import Options, evaluate
from eval.motion_quality import Judges, format_quality, mean_jerk
from eval.motion_sets import MotionSet, real_motions
from prepare.procedural import dataset as synthetic
from rewards.tmr import TMRReward
from tests.rewards.evaluator_files import TINY, write_evaluators
from tests.rewards.glove import write_glove
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.tmr.tiny import tiny_tmr
from utils.errors import UserError
from utils.files import read_json


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quality")
    synthetic.build(synthetic.Options(out=str(root / "data"), num_clips=90, captions_per_clip=1))
    (root / "data" / "val.txt").write_text((root / "data" / "all.txt").read_text())
    tiny_tmr(features=263).save(root / "judge")
    write_tiny_checkpoint(root / "mdm")
    write_evaluators(root / "evaluators")
    write_glove(root / "glove", width=TINY.word)
    return root


@pytest.fixture(scope="module")
def data(place: Path) -> MotionDataset:
    return open_dataset("tiny", "val", str(place / "data"), random_items=False)


def still(frames: int) -> torch.Tensor:
    """Features ``[T, 263]`` of a body that does not move: all joints at the origin."""
    return torch.zeros(frames, 263)


def test_jerk_of_steady_motion_is_zero_and_of_a_cubic_is_constant() -> None:
    time = torch.arange(20) / HUMANML.fps
    motion = still(20)
    motion[:, 3] = 2.0 * time**3  # height of the root: third derivative 12 m/s^3
    lift = features_to_joints(motion, HUMANML)[:, 0, 1]
    torch.testing.assert_close(lift, 2.0 * time**3)
    moving = MotionSet(motion[None], torch.tensor([20]), ["up"], ["a"])
    share = 1 / 22  # of the joints, the others' heights are features of their own
    assert mean_jerk(moving, HUMANML) == pytest.approx(12 * share, rel=0.02)
    motion[:, 3] = 3.0 * time
    assert mean_jerk(moving, HUMANML) == pytest.approx(0, abs=0.2)


def test_frames_after_the_length_do_not_jerk() -> None:
    motion = still(20)
    motion[10:, 3] = 5.0
    short = MotionSet(motion[None], torch.tensor([10]), ["up"], ["a"])
    assert mean_jerk(short, HUMANML) == 0


def test_real_motions_keep_their_facts_and_broken_ones_are_counted(
    place: Path, data: MotionDataset
) -> None:
    judges = Judges(None, None)
    real = real_motions(data, 16)
    whole = judges.measure(real, data)
    assert whole.facts > 0.9
    assert whole.reward is None
    assert whole.recall is None
    real.motions[0, 5, 3] = torch.inf
    assert judges.measure(real, data).broken == 1
    real.motions[:] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        judges.measure(real, data)


def test_recall_counts_motions_of_the_same_meaning(place: Path, data: MotionDataset) -> None:
    judge = TMRReward(tiny_tmr(features=263))
    real = real_motions(data, 16)
    several = real.rows(torch.arange(20))
    found = Judges(judge, judge).measure(several, data)
    assert set(found.recall) == {"R01", "R02", "R03", "R05", "R10", "MedR"}
    same = MotionSet(several.motions, several.lengths, [several.captions[0]] * 20, several.names)
    assert Judges(judge, None).measure(same, data).recall["R01"] == 100


def test_the_benchmark_shows_them_beside_real_motions(place: Path, tmp_path: Path) -> None:
    path = evaluate(
        Options(
            model_path=str(place / "mdm" / "model000000007.pt"),
            eval_mode="debug",
            dataset="tiny",
            data_dir=str(place / "data"),
            evaluator_dir=str(place / "evaluators"),
            glove_dir=str(place / "glove"),
            judge_path=str(place / "judge"),
            replications=1,
            num_motions=64,
            diversity_pairs=20,
            device="cpu",
            output_dir=str(tmp_path),
        )
    )
    quality = read_json(path.with_suffix(".json"))["quality"]
    assert quality["generated"]["facts"] < quality["real"]["facts"]
    assert quality["generated"]["jerk"] != quality["real"]["jerk"]
    assert quality["real"]["recall"]["R10"] >= quality["real"]["recall"]["R01"]
    assert "judge R01" in path.with_suffix(".md").read_text()


def test_a_judge_of_another_skeleton_is_refused(tmp_path: Path) -> None:
    tiny_tmr(features=251).save(tmp_path / "kit")
    with pytest.raises(UserError, match="251 features"):
        Judges.load(str(tmp_path / "kit"), None, "", HUMANML, torch.device("cpu"))


def test_what_was_not_measured_is_a_dash(place: Path, data: MotionDataset) -> None:
    row = Judges(None, None).measure(real_motions(data, 16), data)
    cells = format_quality({"real": row}).splitlines()[-1].split("|")
    assert [cell.strip() for cell in cells[1:3]] == ["real", "-"]
