import math

import numpy as np
import pytest
import torch

from data_loaders.facts import (
    FACT_CHECKS,
    Fact,
    holds,
    is_side_fact,
    measure,
    score_facts,
    swap_sides,
)
from data_loaders.features import features_to_joints, mirror_joints, process_joints
from tests.data_loaders.scenes import SCENES, jump, raise_hand, travel, turn, wave
from utils.rotations import quat_about, quat_rotate

every_scene = pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)


def check(joints, true, false):
    measured = measure(np.asarray(joints))
    assert [fact for fact in true if not holds(fact, measured)] == []
    assert [fact for fact in false if holds(fact, measured)] == []


@every_scene
def test_facts_hold_of_what_was_done_and_of_nothing_else(scene):
    check(scene.joints, scene.true, scene.false)


@every_scene
def test_facts_of_the_mirror_image_have_swapped_sides(scene):
    true, false = ([swap_sides(f) for f in facts] for facts in (scene.true, scene.false))
    check(mirror_joints(scene.joints), true, false)


@every_scene
def test_place_and_heading_do_not_matter(scene):
    turned = quat_rotate(quat_about("y", torch.tensor(2.5, dtype=torch.float64)), scene.joints)
    check(turned + torch.tensor([3.0, -1.0, 5.0]), scene.true, scene.false)


def test_every_kind_of_fact_is_seen_true_and_false():
    for outcome in ("true", "false"):
        kinds = {fact.kind for scene in SCENES.values() for fact in getattr(scene, outcome)}
        assert kinds == set(FACT_CHECKS)


def test_quantities_are_in_degrees_metres_and_seconds():
    assert measure(turn(90)).turn == pytest.approx(90, abs=1)
    assert measure(turn(-300)).turn == pytest.approx(-300, abs=1)
    walk = measure(travel(3, 4))
    assert (walk.distance, walk.displacement) == pytest.approx((5, 5), abs=0.05)
    assert walk.direction == pytest.approx(math.degrees(math.atan2(3, 4)), abs=1)
    assert (walk.duration, walk.speed) == pytest.approx((4, 5 / 4), abs=0.02)
    assert measure(travel(0, 3), fps=10).duration == 8


def test_swaying_within_a_step_is_not_distance():
    joints = travel(0, 4)
    sway = 0.05 * torch.sin(torch.arange(len(joints)) * 2 * math.pi / 9)  # 0.45 s
    joints[..., 0] += sway[:, None]
    assert measure(joints).distance == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("count", range(1, 5))
def test_events_are_counted(count):
    assert measure(raise_hand(0, count, 0.3)).raises == (count, 0)
    assert measure(jump(count, 0.2)).jumps == count
    assert measure(wave(1, count)).strokes == (0, count)


def test_a_hand_that_trembles_at_the_shoulder_is_raised_once():
    joints = raise_hand(0, 1, 0.0)
    joints[30:50, 20, 1] += 0.05 * torch.tensor([1.0, -1.0]).repeat(10)
    assert measure(joints).raises == (1, 0)


def test_facts_survive_the_feature_representation():
    for name in ("turn left", "walk", "step left", "jump twice", "bow"):
        scene = SCENES[name]
        decoded = features_to_joints(process_joints(scene.joints).features)
        check(decoded, scene.true, scene.false)


@pytest.mark.parametrize(
    "joints",
    [
        np.full((40, 22, 3), np.nan),
        np.zeros((40, 22, 3)),
        np.zeros((5, 22, 3)),
        np.zeros((0, 22, 3)),
        np.zeros((22, 3)),
    ],
    ids=["nan", "collapsed", "short", "empty", "one pose"],
)
def test_what_cannot_be_measured_satisfies_nothing(joints):
    measured = measure(joints)
    assert measured is None
    for kind, value in (("jump_count", 0), ("travel", "in place"), ("hand_up", "none")):
        assert not holds(Fact(kind, value), measured)


def test_swapping_sides_is_an_involution():
    stated = {fact for scene in SCENES.values() for fact in (*scene.true, *scene.false)}
    for fact in stated:
        swapped = swap_sides(fact)
        assert swap_sides(swapped) == fact
        assert swapped.kind == fact.kind
        assert (swapped != fact) == is_side_fact(fact) == (fact.value in ("left", "right"))


def test_scores_count_facts_not_motions():
    left, right, angle = (
        Fact("turn_side", "left"),
        Fact("turn_side", "right"),
        Fact("jump_count", 0),
    )
    scores = score_facts(
        [[left, angle], [right], [], [right]], [turn(90), turn(90)] + [turn(-90)] * 2
    )
    assert scores.overall == pytest.approx(3 / 4)
    assert scores.side == pytest.approx(2 / 3)
    assert scores.by_kind == {"jump_count": (1.0, 1), "turn_side": (pytest.approx(2 / 3), 3)}


def test_scores_of_motions_that_cannot_be_measured_are_zero():
    broken = np.full((40, 22, 3), np.nan)
    scores = score_facts([[Fact("turn_side", "left")], [Fact("jump_count", 0)]], [broken] * 2)
    assert (scores.overall, scores.side) == (0.0, 0.0)


def test_nothing_stated_has_no_score():
    scores = score_facts([[], []], [turn(90)] * 2)
    assert (scores.overall, scores.side, scores.by_kind) == (None, None, {})
    assert score_facts([[Fact("jump_count", 0)]], [turn(90)]).side is None
