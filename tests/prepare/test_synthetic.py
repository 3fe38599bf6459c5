import csv
import re

import numpy as np
import pytest
import torch

from data_loaders.annotations import Annotations
from data_loaders.captions import parse_captions
from data_loaders.facts import FACT_CHECKS, Fact, holds, measure, score_facts, swap_sides
from data_loaders.features import features_to_joints, mirror_joints, process_joints
from data_loaders.humanml import make_loader, open_dataset
from data_loaders.skeleton import HUMANML
from prepare.procedural.captions import Detail, Statement, compose, gerund, third_person
from prepare.procedural.dataset import Options, build, make_clip, make_sentences, pick_split
from prepare.procedural.motion import BONES, FPS, bumps, ease, pulse
from tests.prepare.motions import ACTIONS, perform
from utils.errors import UserError

CLIPS = 60
FEET = [*HUMANML.left_foot, *HUMANML.right_foot]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A small set as the command makes it; tests must not change it."""
    out = tmp_path_factory.mktemp("synthetic") / "data"
    build(Options(out=str(out), num_clips=CLIPS))
    return out


@pytest.fixture(scope="session")
def clips():
    return [make_clip(np.random.default_rng([3, index])) for index in range(150)]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# The whole set


def test_same_seed_same_bytes_whatever_the_number_of_workers(folder, tmp_path):
    build(Options(out=str(tmp_path / "again"), num_clips=CLIPS, jobs=2))
    first = {name: data for name, data in contents(folder).items() if "packed" not in name}
    assert contents(tmp_path / "again") == first


def test_clips_depend_on_the_seed_and_their_number_alone(folder, tmp_path):
    build(Options(out=str(tmp_path / "more"), num_clips=CLIPS + 3))
    build(Options(out=str(tmp_path / "other"), num_clips=CLIPS, seed=11))
    first, more, other = (
        contents(path) for path in (folder, tmp_path / "more", tmp_path / "other")
    )
    clips = [name for name in first if name.startswith(("new_joint_vecs", "texts"))]
    assert len(clips) == 2 * CLIPS
    assert all(more[name] == first[name] for name in clips)
    assert not any(other[name] == first[name] for name in clips)


def test_the_oracle_agrees_with_what_captions_state(folder):
    notes = Annotations.load(folder)
    facts, joints = [], []
    for path in sorted((folder / "texts").glob("*.txt")):
        motion = np.load(folder / "new_joints" / f"{path.stem}.npy")
        captions, problems = parse_captions(path.read_text())
        assert problems == []
        assert len(captions) == 4
        facts += [notes.captions[caption.text].facts for caption in captions]
        joints += [motion] * len(captions)
    scores = score_facts(facts, joints)
    assert scores.overall >= 0.98
    assert scores.side >= 0.98
    assert sum(number for _, number in scores.by_kind.values()) > 4 * CLIPS
    assert len(scores.by_kind) > 12


def test_the_loader_opens_it(folder, capsys):
    sizes = {}
    for split in ("train", "val", "test"):
        data = open_dataset("own", split, str(folder))
        sizes[split] = len(data)
        assert all(data.families([entry.name for entry in data.entries]))
        for batch in make_loader(data, 8, shuffle=True):
            assert torch.isfinite(batch.motion).all()
    assert sum(sizes.values()) == CLIPS
    assert sizes["train"] > sizes["test"] > 0
    assert capsys.readouterr().out == ""


def test_held_out_combinations_are_in_the_test_split_only(folder, clips):
    held = {clip.name for clip in clips if clip.held_out}
    assert held
    assert all("+" in name for name in held)
    assert not held & {clip.name for clip in clips if not clip.held_out}
    rng = np.random.default_rng(0)
    assert {pick_split(clip, rng) for clip in clips if clip.held_out} == {"test"}
    assert {pick_split(clip, rng) for clip in clips if not clip.held_out} == {
        "train",
        "val",
        "test",
    }
    with open(folder / "index.csv", newline="") as file:
        splits = {row["name"]: row["split"] for row in csv.DictReader(file)}
    labels = {name: note.labels["action"] for name, note in Annotations.load(folder).clips.items()}
    assert {splits[name] for name, action in labels.items() if action in held} <= {"test"}


def test_an_earlier_set_is_not_lost(folder):
    with pytest.raises(UserError, match="--overwrite"):
        build(Options(out=str(folder), num_clips=CLIPS))


# Motion


@pytest.mark.parametrize("name", ACTIONS)
def test_each_action_does_what_it_states_and_its_mirror_image_the_reverse(name):
    for seed in range(3):
        joints, facts = perform(name, seed)
        decoded = features_to_joints(process_joints(joints).features)
        measured, mirrored = measure(decoded.numpy()), measure(mirror_joints(decoded).numpy())
        assert facts
        for fact in facts:
            assert holds(fact, measured), (seed, fact)
            assert holds(swap_sides(fact), mirrored), (seed, fact)


def test_nobody_is_teleported(clips):
    for clip in clips:
        speed = FPS * np.linalg.norm(np.diff(clip.joints, axis=0), axis=-1)
        assert speed.max() < 15, clip.name
        assert clip.joints[0, 0, [0, 2]] == pytest.approx([0, 0], abs=0.1)


def test_feet_are_on_the_floor_and_in_the_air_only_in_a_jump(clips):
    for clip in clips:
        lowest = clip.joints[:, FEET, 1].min(axis=1)
        assert -0.01 < lowest.min() < 0.03
        assert clip.joints[..., 1].min() > -0.01
        if "jump" not in clip.name:
            assert lowest.max() < 0.1, clip.name


def test_bones_keep_their_length(clips):
    parents = list(HUMANML.parents[1:])
    for clip in clips:
        bones = np.linalg.norm(clip.joints[:, 1:] - clip.joints[:, parents], axis=-1)
        np.testing.assert_allclose(bones, np.broadcast_to(BONES[1:], bones.shape), atol=0.01)


@pytest.mark.parametrize("name", ["walk", "walk-back", "sidestep-left", "circle-right"])
def test_a_planted_foot_does_not_slide(name):
    joints, _ = perform(name, seed=5)
    ankles = joints[:, [7, 8]]
    planted = ankles[..., 1] < ankles[..., 1].min() + 1e-4
    stays = planted[1:] & planted[:-1]
    steps = np.linalg.norm(np.diff(ankles, axis=0), axis=-1)
    assert stays.mean() > 0.4
    assert steps[stays].max() < 0.01  # metres per frame, at the very start of a swing
    assert steps.max() > 0.05


def test_lengths_suit_the_loader(clips):
    lengths = [len(clip.joints) - 1 for clip in clips]
    assert min(lengths) >= HUMANML.min_length
    assert max(lengths) <= HUMANML.max_length


def test_control_curves_start_and_end_at_rest():
    t = np.arange(0, 4, 0.01)
    assert ease(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 0.5, 1, 1]
    held = pulse(t, 1.0, 3.0, 0.5)
    assert held[(t < 1) | (t > 3)].max() == 0
    assert (held[(t > 1.51) & (t < 2.49)] == 1).all()
    repeated = bumps(t, 0.5, 3.5, 3)
    rises = (repeated[1:] > 0.5) & (repeated[:-1] <= 0.5)
    assert rises.sum() == 3
    assert repeated.max() == pytest.approx(1)


# Captions


def test_the_vocabulary_of_actions_and_captions_is_wide(clips):
    assert len(ACTIONS) >= 15
    rng = np.random.default_rng(0)
    texts = {s.text for clip in clips for s in make_sentences(clip, 4, rng)}
    assert len(texts) >= 400
    assert len({clip.name for clip in clips}) > 40


def test_captions_are_plain_words(clips):
    rng = np.random.default_rng(1)
    for clip in clips:
        sentences = make_sentences(clip, 6, rng)
        assert len({s.text for s in sentences}) == len(sentences)
        for sentence in sentences:
            assert re.fullmatch(r"[a-z0-9]+(,? [a-z0-9]+)*", sentence.text), sentence.text
            assert sentence.facts
            assert {fact.kind for fact in sentence.facts} <= set(FACT_CHECKS)


def test_same_meaning_same_facts_and_the_text_decides(clips):
    rng = np.random.default_rng(2)
    by_meaning, by_text = {}, {}
    for clip in clips:
        for sentence in make_sentences(clip, 6, rng):
            facts = sorted(map(str, sentence.facts))
            assert by_meaning.setdefault(sentence.meaning, facts) == facts
            assert by_text.setdefault(sentence.text, sentence.meaning) == sentence.meaning


def test_side_words_are_said_exactly_when_a_side_is_stated(clips):
    rng = np.random.default_rng(4)
    for clip in clips:
        for sentence in make_sentences(clip, 4, rng):
            stated = {str(fact.value) for fact in sentence.facts} & {"left", "right"}
            words = set(re.findall(r"[a-z]+", sentence.text))
            said = {side for side in ("left", "right") if side in words}
            said |= {"left"} if "counterclockwise" in words else set()
            said |= {"right"} if "clockwise" in words else set()
            assert said == stated, sentence.text


def test_details_are_stated_when_they_are_said():
    forward, two, fast = Fact("travel", "forward"), Fact("distance", 2), Fact("speed", "fast")
    details = (Detail(("for two meters",), (two,), 1.0), Detail(("quickly",), (fast,), 0.5))
    statement = Statement("walk", ("<walk> [forward|ahead]",), (forward,), details)
    said = set()
    for seed in range(20):
        sentence = compose([statement], np.random.default_rng(seed))
        assert "for two meters" in sentence.text
        quick = "quickly" in sentence.text
        assert sentence.facts == ((forward, two, fast) if quick else (forward, two))
        said.add((quick, "ahead" in sentence.text))
    assert len(said) == 4


def test_verbs_are_inflected():
    assert [third_person(v) for v in ("walk", "punch", "go", "raise")] == [
        *("walks", "punches", "goes", "raises"),
    ]
    assert [gerund(v) for v in ("walk", "run", "raise", "sit")] == [
        *("walking", "running", "raising", "sitting"),
    ]
