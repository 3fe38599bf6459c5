"""Rewards that are functions of a motion: those of the project, and a user's own."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.annotations import Annotations, CaptionNote
from data_loaders.facts import Fact, measure
from data_loaders.features import features_to_joints, process_joints
from data_loaders.normalizer import Statistics
from data_loaders.skeleton import HUMANML, KIT
from model.seam import Samples
from rewards.functions import FunctionReward, find_function, import_function
from rewards.load import RewardOptions
from rewards.seam import differentiable, similarity
from tests.data_loaders.bodies import moving, upright
from utils.errors import UserError

SOURCE = """
def calm(joints, caption, fps):
    return 1 / (1 + 10 * abs(joints[1:] - joints[:-1]).max())

def seen(joints, caption, fps):
    assert joints.shape[1:] == (22, 3) and fps == 20
    return len(joints) / 100 if caption == "walk" else 0

def too_much(joints, caption, fps):
    return 1.5

def nothing(joints, caption, fps):
    pass

def of_one(joints):
    return 1.0

number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rewards.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)


def raw(*lengths: int) -> Samples:
    """Motions of these lengths, padded with nonsense."""
    x = torch.full((len(lengths), max(lengths) + 3, HUMANML.feature_dim), 1e9)
    for row, length in enumerate(lengths):
        x[row, :length] = process_joints(moving(length + 1, seed=row)).features
    return Samples(x, torch.tensor(lengths))


def reward(name: str, notes: Annotations | None = None) -> FunctionReward:
    size = HUMANML.feature_dim
    stats = Statistics("dataset_stats", torch.zeros(size), torch.ones(size))
    return FunctionReward(name, find_function(name, HUMANML, notes), HUMANML, stats)


def test_a_function_of_the_user_sees_one_motion_without_padding() -> None:
    scores = reward("own_rewards:seen").score(raw(20, 30), ["walk", "jump"])
    torch.testing.assert_close(scores, torch.tensor([0.2, 0.0]))


def test_broken_motions_have_no_reward() -> None:
    samples = raw(20, 30)
    samples.x[1, 4, 7] = torch.nan
    scores = reward("own_rewards:calm").score(samples, ["walk", "walk"])
    assert scores[0] > 0
    assert scores[1] == 0


def test_planted_feet_and_smooth_motions_have_more() -> None:
    skating, jerk = (find_function(name, HUMANML) for name in ("skating", "jerk"))
    path = torch.zeros(30, 3, dtype=torch.float64)
    path[:, 2] = torch.arange(30) / 20  # 1 m/s
    assert skating(upright(30).numpy(), "stand", 20.0) == 1
    assert skating(upright(30, path).numpy(), "slide", 20.0) == 0
    assert jerk(upright(30, path).numpy(), "slide", 20.0) == pytest.approx(1, abs=1e-4)
    wild = moving(30).numpy() + 0.05 * np.random.default_rng(0).standard_normal((30, 22, 3))
    assert 0 < jerk(wild, "", 20.0) < jerk(moving(30).numpy(), "", 20.0) < 1
    assert skating(wild[:1], "", 20.0) == jerk(wild[:3], "", 20.0) == 1


def test_facts_are_the_share_that_holds() -> None:
    samples = raw(40)
    assert measure(features_to_joints(samples.x[0, :40]).numpy()).turn < -25
    stated = (Fact("turn_side", "right"), Fact("turn_side", "left"))
    notes = Annotations({"spin": CaptionNote(stated, "spin"), "be": CaptionNote((), "be")})
    scores = reward("facts", notes).score(
        Samples(samples.x.repeat(3, 1, 1), samples.frames.repeat(3)), ["spin", "be", "unknown"]
    )
    assert scores.tolist() == [0.5, 1.0, 1.0]


def test_alike_motions_are_alike() -> None:
    judge = reward("jerk")
    vectors = judge.embed(raw(20, 30))
    assert vectors.shape == (2, 16 * HUMANML.feature_dim)
    other = Samples(raw(20, 30).x.clone(), torch.tensor([20, 30]))
    torch.testing.assert_close(judge.embed(other), vectors)
    assert similarity(vectors[:1], vectors[1:]) < similarity(vectors[:1], vectors[:1])


def test_what_is_wrong_with_a_function_is_told_in_one_line() -> None:
    for name, message in (
        ("own_rewards:missing", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
        ("own_rewards:", "cannot be imported"),
        ("own_rewards:of_one", r"must be a function of \(joints, caption, fps\)"),
        ("own_rewards:number", r"must be a function of \(joints, caption, fps\)"),
    ):
        with pytest.raises(UserError, match=message) as error:
            import_function(name)
        assert "\n" not in str(error.value)
    for name, shown in (("too_much", "1.5"), ("nothing", "None")):
        with pytest.raises(UserError, match=rf"returned {shown}; rewards lie in \[0, 1\]"):
            reward(f"own_rewards:{name}").score(raw(20), ["walk"])


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(UserError, match="needs a dataset of 22 joints"):
        find_function("facts", HUMANML)
    with pytest.raises(UserError, match="reads humanml motions, not kit motions"):
        reward("jerk").check(KIT)
    with pytest.raises(UserError, match="no gradient"):
        differentiable(reward("jerk"))
    with pytest.raises(UserError, match="--reward nice is unknown; choose one of tmr"):
        RewardOptions(reward=["nice"]).validate()
    with pytest.raises(UserError, match="holds 1 for 2 rewards"):
        RewardOptions(reward=["jerk", "skating"], reward_weights=[1.0]).validate()
    RewardOptions(reward=["jerk", "own_rewards:calm"], reward_weights=[1.0, 2.0]).validate()


def test_the_example_of_the_documentation_runs() -> None:
    from tests.paths import ROOT

    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    source = page.split("```python")[1].split("```")[0]
    assert len(source.strip().splitlines()) <= 15
    space: dict = {}
    exec(source, space)
    still, lively = (size * moving(40).numpy() for size in (0.01, 1.0))
    assert 0 <= space["lively"](still, "stand", 20.0) < space["lively"](lively, "wave", 20.0) <= 1
    assert isinstance(float(space["lively"](still, "stand", 20.0)), float)
    assert np.isfinite(space["lively"](still[:1], "stand", 20.0))


def test_the_reward_of_jerk_is_half_at_100_metres_per_cubic_second() -> None:
    joints = np.zeros((12, 22, 3))
    joints[..., 0] = (100 / 6 * (np.arange(12) / 20.0) ** 3)[:, None]
    assert find_function("jerk", HUMANML)(joints, "", 20.0) == pytest.approx(0.5, abs=1e-6)


def test_functions_see_metres() -> None:
    """KIT's features are in millimetres."""
    seen: list[np.ndarray] = []

    def remember(joints: np.ndarray, caption: str, fps: float) -> float:
        seen.append(joints)
        return 1.0

    motion = torch.zeros(1, 8, KIT.feature_dim)
    motion[..., 3] = 900.0  # height of the root
    FunctionReward("own", remember, KIT).score(Samples(motion, torch.tensor([8])), ["stand"])
    assert seen[0][:, 0, 1] == pytest.approx(0.9)


def test_an_embedding_is_the_features_at_even_moments_from_first_to_last() -> None:
    samples = raw(31, 16)
    found = reward("jerk").embed(samples).view(2, 16, -1)
    assert torch.equal(found[0], samples.x[0, :31:2])
    assert torch.equal(found[1], samples.x[1, :16])
