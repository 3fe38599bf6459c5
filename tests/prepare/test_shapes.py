"""The picture world: its oracle reads what was drawn, its splits share no meaning, its bytes are
fixed by the seed."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from prepare.shape_world.captions import Caption, Phrase, all_captions, known_captions, words
from prepare.shape_world.dataset import METADATA, Options, build, scene_for
from prepare.shape_world.drawing import draw
from prepare.shape_world.facts import judge
from prepare.shape_world.oracle import examine, mean_by_kind, read_objects
from prepare.shape_world.scene import Thing
from utils.errors import UserError


def pictures(count: int, sigma: float) -> list[tuple[Caption, list[Thing], np.ndarray]]:
    rng, captions = np.random.default_rng(3), all_captions()
    made = []
    for index in rng.integers(len(captions), size=count):
        things = scene_for(captions[index], rng)
        picture = draw(things) / 255
        made.append((captions[index], things, picture + sigma * rng.standard_normal(picture.shape)))
    return made


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_oracle_reads_nearly_every_object(sigma: float) -> None:
    def read(things: list[Thing]) -> Counter[tuple[str, ...]]:
        return Counter((t.shape, t.colour, t.size, t.cell) for t in things)

    made = pictures(200, sigma)
    right = [read(read_objects(picture)) == read(things) for _, things, picture in made]
    facts = mean_by_kind([examine(caption, picture) for caption, _, picture in made])
    assert np.mean(right) >= 0.99
    assert min(facts.values()) >= 0.99
    assert set(facts) > {"shape", "colour", "size", "count", "position", "relation"}


def test_pictures_of_other_captions_are_found_out() -> None:
    made = pictures(200, 0.0)
    shifted = zip(made, made[1:], strict=False)
    facts = mean_by_kind([examine(caption, other[2]) for (caption, _, _), other in shifted])
    assert facts["all"] < 0.5
    assert facts["pictures"] < 0.05


def test_each_fact_fails_when_it_alone_is_broken() -> None:
    phrases = (Phrase("circle", "red", "small"), Phrase("square", "blue"))
    caption = Caption("position", phrases, relation="left of")
    circle, square = Thing("circle", "red", "small", 8, 8), Thing("square", "blue", "large", 24, 8)

    def failing(*things: Thing) -> set[str]:
        return {fact.kind for fact in judge(caption, things) if not fact.holds}

    assert failing(circle, square) == set()
    assert failing(circle, square, Thing("circle", "red", "small", 8, 24)) == {"count"}
    assert failing(
        Thing("circle", "red", "small", 24, 8), Thing("square", "blue", "large", 8, 8)
    ) == {"relation"}
    assert failing(Thing("circle", "red", "large", 8, 8), square) == {"size", "relation"}
    assert failing(Thing("circle", "green", "small", 8, 8), square) == {"colour", "relation"}
    corner = Caption("position", phrases[:1], cell="top left")
    held = {
        fact.kind: fact.holds for fact in judge(corner, [Thing("circle", "red", "small", 8, 24)])
    }
    assert held["position"] is False
    assert held["shape"] is True


def test_no_meaning_is_in_two_splits_and_every_word_is_seen() -> None:
    splits: dict[str, set[str]] = {}
    for caption in all_captions():
        splits.setdefault(caption.meaning, set()).add(caption.split)
    assert all(len(names) == 1 for names in splits.values())
    seen = " ".join(c.text for c in all_captions() if c.split == "train")
    assert set(words()) == set(seen.split())
    shares = Counter(caption.split for caption in all_captions())
    assert 0.1 < shares["test"] / len(known_captions()) < 0.2


def test_mirrored_captions_mean_the_same() -> None:
    known = known_captions()
    left = known["a red circle left of a blue square"]
    right = known["a blue square right of a red circle"]
    assert left.meaning == right.meaning
    assert left.meaning != known["a red circle right of a blue square"].meaning


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def made(name: str, seed: int) -> dict[str, bytes]:
        folder = tmp_path / name
        build(Options(out=str(folder), num_train=24, num_validation=6, num_test=6, seed=seed))
        files = sorted(folder.glob("*/*"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    first = made("first", 0)
    assert first == made("again", 0)
    assert first != made("other", 1)
    lines = (tmp_path / "first" / "test" / METADATA).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["file_name"] for row in rows] == [f"{n:05d}.png" for n in range(6)]
    assert all(known_captions()[row["text"]].split == "test" for row in rows)
    with pytest.raises(UserError, match="--out"):
        build(Options(out=str(tmp_path / "first")))
