import csv
import json
import sys

import numpy as np
import pytest

from data_loaders.annotations import Annotations
from data_loaders.captions import MAX_TOKENS, parse_captions
from data_loaders.facts import Fact, holds, measure
from prepare.bandai.captions import caption_clip
from prepare.bandai.evidence import Evidence
from prepare.bandai.grammar import Scene, Style, compose, number_phrases
from prepare.bandai.hints import Hints
from prepare.bandai.scenes import make_scene
from prepare.bandai.templates import BOWS, GAITS, KICKS, PUNCHES, RAISES, TURNS_AROUND, WAVES
from prepare.bvh.clip import load_clip
from prepare.bvh.dataset import Options, build_dataset
from prepare.mocap_captions import main
from tests.paths import MOCAP_DIR, needs_mocap
from tests.prepare.motions import perform
from utils.errors import UserError

HINTS = [
    ["content", "dance", "a person dances"],
    ["content", "dance", "someone is dancing"],
    ["content", "dance", "moving to music, a dancer"],
    ["content", "slash", "a person slashes"],
    ["style_suffix", "old", "slowly, like an old person"],
    ["style_suffix", "old", "with short steps"],
    ["style_suffix", "old", "with a bent back"],
    ["style_suffix", "normal", "in a normal way"],
    ["style_subject", "old", "an old person"],
]


@pytest.fixture
def hints(tmp_path):
    path = tmp_path / "hints.csv"
    write_table(path, ["kind", "label", "text"], HINTS)
    return Hints(path)


def write_table(path, columns, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def row_of(content, style="normal", **values):
    row = {"file": f"{content}_{style}.bvh", "content": content, "style": style}
    return row | {"split": "train", "flags": ""} | values


def facts_of(rows):
    return [[Fact(*pair) for pair in json.loads(row.facts)] for row in rows]


# What captions state

LABELLED = {  # an action of the synthetic set that looks like the content, and a fact to be stated
    "walk": ("walk", Fact("travel", "forward")),
    "run": ("run", Fact("speed", "fast")),
    "walk-back": ("walk-back", Fact("travel", "backward")),
    "walk-left": ("sidestep-left", Fact("travel", "left")),
    "walk-turn-right": ("walk-turn-right", Fact("turn_side", "right")),
    "wave-left-hand": ("wave-left", Fact("wave_side", "left")),
    "byebye": ("wave-both", Fact("wave_side", "both")),
    "raise-up-both-hands": ("raise-both", Fact("hand_up", "both")),
    "respond": ("raise-left", Fact("hand_up", "left")),
    "kick": ("kick-right", Fact("kick_side", "right")),
    "punch": ("punch-left", Fact("punch_side", "left")),
}


@pytest.mark.parametrize("content", LABELLED)
def test_stated_facts_hold_and_the_main_one_is_stated(hints, content):
    action, main_fact = LABELLED[content]
    joints, _ = perform(action, seed=1)
    rows = caption_clip(row_of(content), joints, hints)
    measured = measure(joints[:-1])
    assert 2 <= len(rows) <= 6
    for facts in facts_of(rows):
        assert main_fact in facts
        assert [fact for fact in facts if not holds(fact, measured)] == []


def test_a_wrong_side_in_the_label_is_corrected(hints):
    joints, _ = perform("walk-turn-left", seed=1)
    rows = caption_clip(row_of("walk-turn-right"), joints, hints)
    assert all(Fact("turn_side", "left") in facts for facts in facts_of(rows))
    assert all("left" in row.caption and "right" not in row.caption for row in rows)


@pytest.mark.parametrize(
    ("content", "action", "word"),
    [
        ("wave-left-hand", "wave-right", "slightly"),  # the labelled hand hangs down
        ("raise-up-left-hand", "raise-right", "low raise"),
        ("walk-left", "walk", "walk-sideways"),
    ],
)
def test_what_was_not_measured_is_not_stated(hints, content, action, word):
    joints, _ = perform(action, seed=2)
    rows = caption_clip(row_of(content), joints, hints)
    unlikely = {"wave_side", "hand_up", "travel"}
    for facts in facts_of(rows):
        assert not any(f.kind in unlikely and f.value == "left" for f in facts)
    assert any(word in row.caption or word in row.meaning for row in rows)


def test_a_fact_must_hold_of_every_cut():
    joints, facts = perform("walk-turn-left", seed=3)
    evidence = Evidence.of(joints)
    assert evidence.supported(*facts) == tuple(facts)
    assert not evidence.supports(Fact("turn_side", "right"))
    # near the longest that the whole clip may be said to last, 0.5 s and 15 % more than it does
    longest = Fact("duration", (evidence.whole.duration + 0.5) / 0.85 - 0.01)
    assert holds(longest, evidence.whole)
    assert not evidence.supports(longest)


def test_gaits_too_short_to_be_whole_have_no_captions(hints):
    joints, _ = perform("walk", seed=1)
    assert caption_clip(row_of("walk"), joints[:30], hints) == []
    gesture, _ = perform("bow", seed=1)
    rows = caption_clip(row_of("bow"), gesture[:30], hints)
    assert rows
    assert all(fact.kind != "duration" for facts in facts_of(rows) for fact in facts)


def test_same_seed_same_captions(hints):
    joints, _ = perform("walk", seed=1)

    def texts(row, seed):
        return [row.caption for row in caption_clip(row, joints, hints, seed=seed)]

    walk = row_of("walk", "old")
    assert texts(walk, 0) == texts(walk, 0)
    assert texts(walk, 0) != texts(walk, 1)
    assert texts(walk, 0) != texts(row_of("walk", "old", file="other.bvh"), 0)


def test_rows_have_the_columns_of_the_table(hints):
    joints, _ = perform("bow", seed=1)
    for row in caption_clip(row_of("bow", "old", split="val"), joints, hints, per_clip=4):
        assert (row.file, row.split, row.family) == ("bow_old.bvh", "val", "bow")
        assert json.loads(row.labels) == {"content": "bow", "style": "old"}


# Wording


def all_halves():
    yield from GAITS.values()
    yield from (TURNS_AROUND, PUNCHES, KICKS)
    for table in (WAVES, RAISES, BOWS):
        yield from (halves for _, halves in table.values())


def test_halves_of_templates_are_disjoint_and_name_the_subject():
    for even, odd in all_halves():
        assert not set(even) & set(odd)
        assert len(even) >= 2
        assert len(odd) >= 2
        assert all(template.count("{subject}") == 1 for template in (*even, *odd))


def test_captions_alternate_between_the_halves():
    halves = tuple(
        tuple(f"{{subject}} {verb} {way}" for way in "abc") for verb in ("walks", "goes")
    )
    captions = compose(Scene("walk", "walk", halves), Style(), np.random.default_rng(0), 6)
    assert [caption.text.split()[-2] for caption in captions] == ["walks", "goes"] * 3
    assert len({caption.text for caption in captions}) == 6


def test_captions_are_short_tidy_and_tell_the_style(hints):
    style = hints.style("old", gait=True, slow=True)
    assert style.name == "elderly"
    joints, _ = perform("walk-turn-left", seed=1)
    scene = make_scene(row_of("walk-turn-left", "old"), Evidence.of(joints), hints)
    seen = set()
    for seed in range(30):
        for caption in compose(scene, style, np.random.default_rng(seed)):
            assert len(caption.text.split()) <= MAX_TOKENS
            assert not set("{}[]<>#") & set(caption.text)
            assert "  " not in caption.text
            assert " ," not in caption.text
            styled = any(phrase in caption.text for phrase in (*style.phrases, "an old person"))
            assert styled == ("style=elderly" in caption.meaning)
            seen.add(styled)
    assert seen == {True, False}


def test_the_text_decides_facts_and_meaning(hints):
    notes = {}
    for content, (action, _) in LABELLED.items():
        for seed in range(4):
            joints, _ = perform(action, seed)
            for row in caption_clip(row_of(content), joints, hints, seed=seed):
                stated = sorted(map(str, json.loads(row.facts))), row.meaning
                assert notes.setdefault(row.caption, stated) == stated


def test_style_phrases_suit_the_action(hints):
    assert "with short steps" in hints.style("old", gait=True, slow=True).phrases
    assert hints.style("old", gait=False, slow=True).phrases == (
        "slowly, like an old person",
        "with a bent back",
    )
    assert hints.style("old", gait=False, slow=False).phrases == ("with a bent back",)
    assert hints.style("normal", gait=True, slow=True) == Style()


def test_rare_actions_are_worded_by_the_hints(hints):
    even, odd = hints.sentences("dance")
    assert even == ("{subject} dances", "{subject} moving to music, a dancer")
    assert odd == ("{subject} is dancing",)
    for content in ("slash", "swim"):
        with pytest.raises(UserError, match=f"fewer than two sentences of the content '{content}'"):
            hints.sentences(content)


def test_numbers_are_said_in_words_and_digits():
    assert number_phrases(6, "seconds", "for") == (
        *("for about six seconds", "for roughly six seconds", "for about 6 seconds"),
    )
    assert number_phrases(1, "meters")[0] == "about one meter"
    assert number_phrases(30, "times")[0] == "about 30 times"


# Files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--hints .* cannot be read"),
        (b"kind,label,text\n", "holds no phrase"),
        (b"kind,label\ncontent,walk\n", "lacks the column text"),
        (b"\xff\xfe\xff", "not a readable CSV file"),
    ],
)
def test_unreadable_tables_are_told(tmp_path, content, message):
    path = tmp_path / "hints.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        Hints(path)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mocap_captions", *map(str, arguments)])
    main()


@needs_mocap
def test_recorded_clips_satisfy_their_captions_and_mirrored_clips_theirs(tmp_path, monkeypatch):
    table, samples = tmp_path / "captions.csv", MOCAP_DIR / "samples"
    sources = ("--index", MOCAP_DIR / "index.csv", "--hints", MOCAP_DIR / "captions_hint.csv")
    run(monkeypatch, "--bvh_dir", samples, *sources, "--out", table)
    build_dataset(
        Options(bvh_dir=str(samples), captions=str(table), out=str(tmp_path / "data"), jobs=1)
    )
    folder = tmp_path / "data"
    notes = Annotations.load(folder)
    families, sides = set(), {"": set(), "M": set()}
    for path in (folder / "texts").glob("*.txt"):
        measured = measure(np.load(folder / "new_joints" / path.name.replace(".txt", ".npy")))
        captions, _ = parse_captions(path.read_text())
        families.add(notes.clips[path.stem].family)
        for caption in captions:
            note = notes.captions.get(caption.text)
            for fact in note.facts if note else ():
                assert holds(fact, measured), (path.stem, caption.text, fact)
                sides["M" if path.stem[0] == "M" else ""].add(fact)
    assert families == {"bow", "walk-sideways", "run", "walk-turn", "wave"}
    for fact, mirrored in (("left", "right"), ("right", "left")):
        assert any(f.value == fact for f in sides[""])
        assert any(f.value == mirrored for f in sides["M"])
    assert Fact("turn_side", "left") in sides[""]
    assert Fact("turn_side", "right") in sides["M"]
    assert Fact("turn_side", "left") not in sides["M"]


@needs_mocap
def test_recorded_gait_cycles_that_must_be_held_have_no_captions():
    hints = Hints(MOCAP_DIR / "captions_hint.csv")
    joints = load_clip(MOCAP_DIR / "samples" / "dataset-1_walk_normal_002.bvh")
    assert caption_clip(row_of("walk"), joints, hints) == []


def test_a_folder_without_listed_clips_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "clip.bvh").write_text("HIERARCHY")
    index = tmp_path / "index.csv"
    write_table(index, list(row_of("walk")), [row_of("walk").values()])
    write_table(tmp_path / "hints.csv", ["kind", "label", "text"], HINTS)
    arguments = ("--bvh_dir", tmp_path, "--index", index, "--hints", tmp_path / "hints.csv")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments, "--out", tmp_path / "captions.csv")
    assert stopped.value.code == 2
    assert "has no file that --index names" in capsys.readouterr().err
    assert not (tmp_path / "captions.csv").exists()
