"""Captions of one clip, as rows of the table that prepare.from_bvh reads."""

import json
import zlib
from dataclasses import dataclass, fields

import numpy as np

from data_loaders.facts import Fact
from prepare.bandai.evidence import Evidence
from prepare.bandai.grammar import compose
from prepare.bandai.hints import Hints
from prepare.bandai.scenes import GAIT_CONTENTS, make_scene


@dataclass(frozen=True)
class CaptionRow:
    """A row of the table; facts and labels are JSON."""

    file: str
    caption: str
    facts: str
    meaning: str
    family: str
    split: str
    labels: str


COLUMNS = tuple(field.name for field in fields(CaptionRow))


def caption_clip(
    row: dict[str, str], joints: np.ndarray, hints: Hints, per_clip: int = 6, seed: int = 0
) -> list[CaptionRow]:
    """Rows of the caption table for one row of the index and its joints [T, 22, 3] at 20 fps.

    There are none for a gait so short that a dataset would hold its last pose.
    """
    evidence = Evidence.of(joints)
    gait = row["content"] in GAIT_CONTENTS
    if gait and evidence.padded:
        return []
    scene = make_scene(row, evidence, hints)
    slow = not gait or evidence.supports(Fact("speed", "slow"))
    style = hints.style(row["style"], gait, slow)
    rng = np.random.default_rng([seed, zlib.crc32(row["file"].encode())])
    labels = json.dumps({"content": row["content"], "style": row["style"]})
    return [
        CaptionRow(
            file=row["file"],
            caption=caption.text,
            facts=json.dumps([[fact.kind, fact.value] for fact in caption.facts]),
            meaning=caption.meaning,
            family=scene.family,
            split=row["split"],
            labels=labels,
        )
        for caption in compose(scene, style, rng, per_clip)
    ]
