"""What a page holds, without a browser."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from data_loaders.facts import Fact
from data_loaders.skeleton import HUMANML, KIT
from sample.viewer.packing import PLANTED_HEIGHT, pack, planted_feet, quantize
from sample.viewer.page import FOLDER, Motion, Run, check_size, words, write_page, write_pages
from tests.sample.viewer_pages import (
    CAPTIONS,
    Scripts,
    example_page,
    example_runs,
    read_page,
    standing,
    walking,
)
from utils.errors import UserError
from utils.files import read_json


def test_a_page_holds_all_that_it_needs_and_captions_as_they_were_written(tmp_path) -> None:
    parsed = Scripts(example_page(tmp_path).read_text(encoding="utf-8"))
    assert parsed.links == ["data:,"], "nothing is loaded from elsewhere"
    page = json.loads(parsed.found["page-data"])
    assert [row["caption"] for row in page["rows"]] == list(CAPTIONS)
    assert page["runs"] == ["base", "SoPo"]
    first = page["rows"][0]["motions"][1]
    assert first["seed"] == 7
    assert first["figures"]["reward"] == pytest.approx(0.9)
    assert first["facts"] == [
        {"text": "travel forward", "holds": True},
        {"text": "jump count 2", "holds": False},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_joints_come_back_to_a_tenth_of_a_millimetre(tmp_path) -> None:
    page = Scripts(example_page(tmp_path).read_text(encoding="utf-8")).found
    data = base64.b64decode(page["motion-data"])
    start = 0
    for number, row in enumerate(json.loads(page["page-data"])["rows"]):
        for about in row["motions"]:
            size = about["frames"] * 22 * 3
            stored = np.frombuffer(data, "<i2", size, 2 * start).reshape(-1, 22, 3)
            start += size
            assert np.abs(stored * about["scale"] - walking(40 + 10 * number)).max() < 1e-4
    frames = 2 * (40 + 50 + 60 + 70)
    assert len(data) == 2 * start + frames, "a byte of contacts per frame follows"


def test_quantizing_keeps_half_a_step() -> None:
    joints = np.random.default_rng(0).normal(scale=3.0, size=(50, 22, 3))
    integers, scale = quantize(joints)
    assert np.abs(integers * scale - joints).max() <= scale / 2 + 1e-12
    assert np.abs(integers).max() == 32767
    assert quantize(np.zeros((1, 22, 3)))[1] == 1.0


def test_a_foot_is_planted_where_it_is_slow_and_low() -> None:
    joints = np.repeat(standing()[None], 12, axis=0)
    joints[6:, [7, 10], 1] += PLANTED_HEIGHT + 0.02  # the left foot is held up
    joints[:, [8, 11], 2] += 0.1 * np.arange(12)[:, None]  # the right one slides, at 2 m/s
    found = planted_feet(joints, HUMANML)
    assert found.tolist() == [1] * 5 + [0] * 7, "lifted within frame 5"
    assert planted_feet(standing()[None], HUMANML).tolist() == [3], "one frame stands"
    kit = np.repeat(standing(KIT)[None], 3, axis=0)
    assert planted_feet(kit / 1000, KIT).tolist() == [3] * 3


def test_packed_bytes_are_joints_then_contacts() -> None:
    packed = pack([np.array([1, -2], "<i2")], [np.array([3], np.uint8)])
    assert base64.b64decode(packed) == b"\x01\x00\xfe\xff\x03"


def test_many_motions_are_spread_over_linked_pages(tmp_path) -> None:
    paths = write_pages(tmp_path, example_runs(rows=7), HUMANML, "many", limit=6)
    assert [path.name for path in paths] == ["index.html", "index_2.html", "index_3.html"]
    found = []
    for number, path in enumerate(paths):
        page = read_page(path)
        assert page["pages"] == [path.name for path in paths]
        assert page["number"] == number
        found += [row["caption"] for row in page["rows"]]
    assert len(found) == len(set(found)) == 7
    (single,) = write_pages(tmp_path / "one", example_runs(rows=3), HUMANML, "few", limit=6)
    assert read_page(single)["pages"] == []


def broken(value: float) -> list[Run]:
    (run,) = example_runs(("base",), rows=1)
    (motion,) = run.motions
    joints = motion.joints.copy()
    joints[3, 5, 1] = value
    return [Run("base", [replace(motion, joints=joints)])]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no motion to show"),
        ([Run("base", [])], "no motion to show"),
        (broken(np.nan), "of base for 'a person walks ahead' holds NaN"),
        (broken(np.inf), "holds NaN or infinity"),
        ([Run("base", [Motion("a", np.zeros((0, 22, 3)))])], "'a' has no frame"),
        ([Run("a", [Motion("x", walking(3))]), Run("b", [Motion("y", walking(3))])], "other capt"),
        ([Run(str(i), [Motion("x", walking(2))]) for i in range(301)], "301 motions for each"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_nothing_is_written(tmp_path, runs, message) -> None:
    with pytest.raises(UserError, match=message):
        write_page(tmp_path / "index.html", runs, HUMANML, "broken")
    assert list(tmp_path.iterdir()) == []


def test_a_caption_with_too_many_motions_is_refused_before_they_are_made() -> None:
    check_size(captions=10_000, runs=3)
    with pytest.raises(UserError, match=r"10000 motions for each of 2 captions .* --page false"):
        check_size(captions=2, runs=10_000)


def test_facts_are_written_as_words() -> None:
    facts = [Fact("turn_angle", 90.0), Fact("kneel", "yes"), Fact("hand_up", "left")]
    assert [words(fact) for fact in facts] == ["turn angle 90", "kneel", "hand up left"]


def test_the_skeleton_of_kit_is_described(tmp_path) -> None:
    joints = np.repeat(standing(KIT)[None], 5, axis=0)
    path = write_page(tmp_path / "k.html", [Run("kit", [Motion("a", joints)])], KIT, "kit")
    about = read_page(path)["skeleton"]
    assert about["sides"].count("left") == about["sides"].count("right") == 8
    assert about["head"] == KIT.joint_names.index("BUN")
    assert min(about["radii"][1:]) > 0.03


def test_the_vendored_library_is_what_its_record_says() -> None:
    folder = FOLDER / "vendor"
    record = read_json(folder / "three.json")
    library = (folder / "three.min.js").read_bytes()
    assert hashlib.sha256(library).hexdigest() == record["sha256"]
    revision = record["three"].split(".")[1]
    assert b'"%s"' % revision.encode() in library
    licence = (folder / "LICENSE.three").read_text(encoding="utf-8")
    assert licence.strip() in library.decode("utf-8"), "the licence stands in every copy"
    assert not re.search(rb"</script|<!--", library, re.IGNORECASE)
