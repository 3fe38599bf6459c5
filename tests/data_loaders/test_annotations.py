import json

import pytest

from data_loaders.annotations import FILE_NAME, Annotations, CaptionNote, ClipNote
from data_loaders.facts import Fact
from utils.errors import UserError

NOTES = Annotations(
    captions={
        "a person turns left by 90 degrees": CaptionNote(
            (Fact("turn_side", "left"), Fact("turn_angle", 90)), "turn: left 90"
        ),
        "jemand läuft": CaptionNote((), "walk"),
    },
    clips={"000001": ClipNote("turn", {"style": "old"}), "M000001": ClipNote("turn")},
)


def test_files_hold_what_was_saved(tmp_path):
    NOTES.save(tmp_path)
    assert Annotations.load(tmp_path) == NOTES
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_same_notes_same_bytes(tmp_path):
    NOTES.save(tmp_path)
    first = (tmp_path / FILE_NAME).read_bytes()
    backwards = Annotations(
        dict(reversed(NOTES.captions.items())), dict(reversed(NOTES.clips.items()))
    )
    backwards.save(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == first


def test_a_folder_without_notes_has_none(tmp_path):
    assert Annotations.load(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is malformed"),
        ({"captions": {}}, "malformed.*clips"),
        ({"captions": {"walks": {"facts": []}}, "clips": {}}, "malformed.*meaning"),
        ({"captions": {"walks": {"facts": [["speed"]], "meaning": ""}}, "clips": {}}, "malformed"),
        ({"captions": {}, "clips": {"000001": None}}, "malformed"),
        (
            {"captions": {"walks": {"facts": [["mood", "sad"]], "meaning": ""}}, "clips": {}},
            "unknown kind: mood",
        ),
        ({"captions": {"a": {"facts": [[["x"], 1]], "meaning": ""}}, "clips": {}}, "malformed"),
        ({"captions": {"a": {"facts": [["speed", []]], "meaning": ""}}, "clips": {}}, "malformed"),
        ({"captions": {"a": {"facts": [], "meaning": 3}}, "clips": {}}, "malformed"),
        ({"captions": {}, "clips": {"a": {"family": []}}}, "malformed"),
        ({"captions": {}, "clips": {"a": {"family": "", "labels": 1}}}, "malformed"),
    ],
)
def test_malformed_files_are_told(tmp_path, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(UserError, match=message):
        Annotations.load(tmp_path)
