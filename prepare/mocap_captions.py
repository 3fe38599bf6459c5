"""Compose captions of the Bandai-Namco motion capture clips from labels and measurements.

    python -m prepare.mocap_captions --bvh_dir DIR --index index.csv --hints captions_hint.csv \\
        --out captions.csv
    python -m prepare.from_bvh --bvh_dir DIR --captions captions.csv --out dataset/Bandai

The labels say what is done and in which style; angles, distances, paces, counts, heights and times
are measured. A caption states a fact only where it holds with a margin: on the joints that the
dataset will hold, on their mirror image, and with up to seven frames less at either end, which is
what the loader may crop. So no caption states what its own motion fails, and a wrong side in a
label is corrected by what was measured.

Style phrases, and the sentences of actions that are rare, come from the table of hints.
"""

from utils.start import entry_point

import csv
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data_loaders.facts import Fact, Measurements, holds, measure, swap_sides
from data_loaders.features import features_to_joints, mirror_joints, process_joints
from prepare import from_bvh
from prepare.bandai.grammar import Detail, Scene, Style, compose, number_phrases
from prepare.bandai.templates import BOWS, GAITS, KICKS, PUNCHES, RAISES, TURNS_AROUND, WAVES
from prepare.bvh.clip import load_clip
from utils.errors import UserError
from utils.files import atomic_write
from utils.options import option, parse_options

LOADER_CROP = 7  # frames: a remainder below four, and one unit of four
METERS = (1, 2, 3, 4, 5, 6, 8, 10)
ANGLES = {
    45: "forty five",
    90: "ninety",
    135: "a hundred and thirty five",
    180: "a hundred and eighty",
}
PACES = {  # metres per second, well inside the ranges of the fact; outside: not stated
    "slow": (0.0, 0.8),
    "normal": (1.05, 1.45),
    "fast": (1.7, 9.9),
}
PACE_PHRASES = {
    "slow": ("slowly", "at a slow pace"),
    "normal": ("at a normal pace", "at a moderate pace"),
    "fast": ("fast", "at a fast pace", "quickly"),
}
SAME_STYLE = {"old": "elderly", "tired": "exhausted", "masculinity": "masculine"}
WIDE_WAVE = 6  # strokes; lifting and lowering a hand that waves by the wrist alone makes up to five
OF_STEPS = ("step", "stride", "held in front of the chest")  # style phrases of gaits alone
OTHER_SIDE = {"left": "right", "right": "left"}
COLUMNS = ("file", "caption", "facts", "meaning", "family", "split", "labels")


@dataclass
class Options:
    bvh_dir: str = option("", "folder of BVH files, searched recursively", required=True)
    index: str = option("", "table of clips with the columns file, content, ...", required=True)
    hints: str = option("", "table of phrases with the columns kind, label, text", required=True)
    out: str = option("", "CSV table to write", required=True)
    per_clip: int = option(6, "captions of one clip, at most", minimum=1)
    seed: int = option(0, "seed of the choice of phrases", minimum=0)


@dataclass(frozen=True)
class Evidence:
    """Measurements of a clip as a whole, and of its cut and its mirrored variants."""

    whole: Measurements | None
    variants: tuple[Measurements | None, ...]
    mirrored: tuple[Measurements | None, ...]
    padded: bool  # the clip is so short that its last pose is held

    @staticmethod
    def of(joints: np.ndarray) -> "Evidence":
        """Of joints [T, 22, 3] in metres at 20 fps, before the change to the reference body."""
        settings = from_bvh.Options(pad_short=True, min_seconds=0.0)
        (kept,) = from_bvh.fit_length(joints, settings)
        variants = _measure_cuts(kept)
        mirrored = _measure_cuts(mirror_joints(torch.from_numpy(kept)))
        return Evidence(variants[0], variants, mirrored, len(kept) > len(joints))

    def supports(self, fact: Fact) -> bool:
        other = swap_sides(fact)
        return all(holds(fact, m) for m in self.variants) and all(
            holds(other, m) for m in self.mirrored
        )

    def supported(self, *facts: Fact) -> tuple[Fact, ...]:
        return tuple(fact for fact in facts if self.supports(fact))


def _measure_cuts(joints: np.ndarray | torch.Tensor) -> tuple[Measurements | None, ...]:
    decoded = features_to_joints(process_joints(joints).features).numpy()
    return tuple(measure(part) for part in (decoded, decoded[LOADER_CROP:], decoded[:-LOADER_CROP]))


class Hints:
    """Phrases of the hints table by kind and label."""

    def __init__(self, path: str | Path) -> None:
        self.phrases: dict[tuple[str, str], list[str]] = {}
        for row in read_table(path, "--hints", ("kind", "label", "text")):
            self.phrases.setdefault((row["kind"], row["label"]), []).append(row["text"])

    def sentences(self, content: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sentences of an action as templates, in two halves. Raises UserError without any."""
        texts = self.phrases.get(("content", content), [])
        templates = [_with_subject_slot(text) for text in texts]
        if len(templates) < 2:
            raise UserError(f"--hints has fewer than two sentences of the content {content!r}")
        return tuple(templates[::2]), tuple(templates[1::2])

    def style(self, label: str, gait: bool, slow: bool) -> Style:
        """Phrases that suit the action: of steps for gaits only, of slowness if it is slow."""
        phrases = [
            phrase
            for phrase in self.phrases.get(("style_suffix", label), [])
            if (gait or not any(words in phrase for words in OF_STEPS))
            and (slow or "slow" not in phrase)
        ]
        if label == "normal":
            return Style()  # nothing to remark
        (subject, *_) = self.phrases.get(("style_subject", label), [""])
        return Style(SAME_STYLE.get(label, label), tuple(phrases), subject)


def _with_subject_slot(sentence: str) -> str:
    for subject in ("a person", "someone", "the person"):
        if sentence.startswith(subject):
            return "{subject}" + sentence.removeprefix(subject)
    return "{subject} " + sentence


def read_table(path: str | Path, name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a CSV table. Raises UserError when it cannot be read or lacks a column."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name} {path} cannot be read ({error})") from None
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise UserError(f"{name} {path} lacks the column {' and '.join(missing)}, or any row")
    return rows


# Details: quantities, rounded


def seconds_detail(evidence: Evidence, before: str) -> dict[str, Detail]:
    value = max(1, round(evidence.whole.duration)) if evidence.whole else 0
    fact = Fact("duration", value)
    if evidence.padded or not evidence.supports(fact):
        return {}
    return {"seconds": Detail(fact, number_phrases(value, "seconds", before))}


def travel_details(evidence: Evidence, style: str) -> dict[str, Detail]:
    """Distance, pace and duration of a gait."""
    if evidence.whole is None:
        return {}
    details = seconds_detail(evidence, "for")
    meters = min(METERS, key=lambda value: abs(value - evidence.whole.distance))
    if evidence.supports(Fact("distance", meters)):
        phrases = number_phrases(meters, "meters")
        details["distance"] = Detail(Fact("distance", meters), phrases)
    for pace, (least, most) in PACES.items():
        fact = Fact("speed", pace)
        said = pace != "normal" or style == "normal"
        if said and least <= evidence.whole.speed <= most and evidence.supports(fact):
            details["pace"] = Detail(fact, PACE_PHRASES[pace])
    return details


def turn_details(evidence: Evidence) -> dict[str, Detail]:
    degrees = min(ANGLES, key=lambda value: abs(value - abs(evidence.whole.turn)))
    fact = Fact("turn_angle", degrees)
    if not evidence.supports(fact):
        return {}
    by = (f"by about {ANGLES[degrees]} degrees", f"by roughly {degrees} degrees")
    of = (f"of about {ANGLES[degrees]} degrees", f"of about {degrees} degrees")
    return {"angle": Detail(fact, by), "of_angle": Detail(fact, of)}


def gesture_details(evidence: Evidence, side: str, before: str) -> dict[str, Detail]:
    """Height, place and duration of a gesture."""
    above, in_place = Fact("above_head", side), Fact("travel", "in place")
    details = seconds_detail(evidence, before)
    if evidence.supports(above):
        details["above"] = Detail(above, ("above the head", "high over the head"))
    if evidence.supports(in_place):
        details["in_place"] = Detail(in_place, ("in place", "on the spot"))
    return details


def stroke_detail(evidence: Evidence) -> dict[str, Detail]:
    """How often a hand waves; one wave is a stroke to each side."""
    waves = round(max(evidence.whole.strokes) / 2) if evidence.whole else 0
    fact = Fact("wave_strokes", 2 * waves)
    if not evidence.supports(fact):
        return {}
    return {"count": Detail(fact, number_phrases(waves, "times"))}


# Scenes


def gait_scene(content: str, evidence: Evidence, style: str, flags: str) -> Scene:
    """walk, run, dash, walk-back, walk-left, walk-right, walk-turn-left, walk-turn-right."""
    details = travel_details(evidence, style)
    if content.startswith("walk-turn"):
        side = "left" if evidence.whole and evidence.whole.turn > 0 else "right"
        facts = evidence.supported(Fact("travel", "forward"), Fact("turn_side", side))
        if len(facts) < 2 or "extra_about_turn" in flags:
            return Scene("walk and turn", "walk-turn", TURNS_AROUND, details=details)
        details |= turn_details(evidence)
        return Scene(
            f"walk-turn {side}", "walk-turn", GAITS["walk-turn"], facts, {"side": side}, details
        )
    if content in ("walk-left", "walk-right"):
        side = content.removeprefix("walk-")
        facts = evidence.supported(Fact("travel", side))
        words = {"side": side, "other": OTHER_SIDE[side]}
        gait = "walk-sideways"
        return Scene(f"{gait} {side}", gait, GAITS[gait], facts, words, details)
    facts = [Fact("travel", "backward" if content == "walk-back" else "forward")]
    gait = content
    if content in ("run", "dash"):
        details.pop("pace", None)
        fast = Fact("speed", "fast")
        if evidence.supports(fast):
            facts.append(fast)
        else:
            gait = "jog"
    return Scene(gait, content, GAITS[gait], evidence.supported(*facts), {}, details)


def hand_words(side: str) -> dict[str, str]:
    if side == "both":
        return {"hands": "both hands", "arms": "both arms", "them": "them"}
    return {"hands": f"the {side} hand", "arms": f"the {side} arm", "them": "it"}


def wave_scene(side: str, evidence: Evidence) -> Scene:
    up = evidence.supported(Fact("hand_up", side))
    widely = evidence.whole is not None and max(evidence.whole.strokes) >= WIDE_WAVE
    waving = evidence.supported(Fact("wave_side", side)) if widely else ()
    action, templates = WAVES[bool(up), bool(waving)]
    details = gesture_details(evidence, side, "for") | (stroke_detail(evidence) if waving else {})
    return Scene(f"{action} {side}", "wave", templates, up + waving, hand_words(side), details)


def raise_scene(side: str, evidence: Evidence) -> Scene:
    facts = evidence.supported(Fact("hand_up", side))
    action, templates = RAISES[bool(facts)]
    details = gesture_details(evidence, side, "in")
    once = Fact("raise_count", 1)
    if evidence.supports(once):
        details["count"] = Detail(once, ("once", "one time"))
    return Scene(f"{action} {side}", "raise", templates, facts, hand_words(side), details)


def bow_scene(evidence: Evidence) -> Scene:
    facts = evidence.supported(Fact("bow_count", 1))
    action, templates = BOWS[bool(facts)]
    return Scene(action, "bow", templates, facts, {}, gesture_details(evidence, "both", "for"))


def strike_scene(content: str, evidence: Evidence, hints: Hints) -> Scene:
    """punch and kick; without a measured side the hints say it."""
    for side in OTHER_SIDE:
        facts = evidence.supported(Fact(f"{content}_side", side))
        if facts:
            templates = {"punch": PUNCHES, "kick": KICKS}[content]
            details = seconds_detail(evidence, "for")
            return Scene(f"{content} {side}", content, templates, facts, {"side": side}, details)
    return Scene(content, content, hints.sentences(content))


GAIT_CONTENTS = (
    *("walk", "run", "dash", "walk-back", "walk-left", "walk-right"),
    *("walk-turn-left", "walk-turn-right"),
)
HANDS = {"left-hand": "left", "right-hand": "right", "both-hands": "both"}
GESTURES: dict[str, tuple[Callable[[str, Evidence], Scene], str]] = {
    "bye": (wave_scene, "right"),
    "byebye": (wave_scene, "both"),
    "respond": (raise_scene, "left"),
    **{f"wave-{hands}": (wave_scene, side) for hands, side in HANDS.items()},
    **{f"raise-up-{hands}": (raise_scene, side) for hands, side in HANDS.items()},
}


def make_scene(row: dict[str, str], evidence: Evidence, hints: Hints) -> Scene:
    """Everything that can be said of a clip of the index. Raises UserError for unknown actions."""
    content = row["content"]
    if content in GAIT_CONTENTS:
        return gait_scene(content, evidence, row["style"], row["flags"])
    if content in GESTURES:
        build, side = GESTURES[content]
        return build(side, evidence)
    if content == "bow":
        return bow_scene(evidence)
    if content in ("punch", "kick"):
        return strike_scene(content, evidence, hints)
    return Scene(content, content, hints.sentences(content))


def caption_clip(
    row: dict[str, str], joints: np.ndarray, hints: Hints, per_clip: int = 6, seed: int = 0
) -> list[list[str]]:
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
        [
            row["file"],
            caption.text,
            json.dumps([[fact.kind, fact.value] for fact in caption.facts]),
            caption.meaning,
            scene.family,
            row["split"],
            labels,
        ]
        for caption in compose(scene, style, rng, per_clip)
    ]


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    hints = Hints(options.hints)
    index = read_table(options.index, "--index", ("file", "content", "style", "split", "flags"))
    found = {path.name: path for path in from_bvh.find_files(Path(options.bvh_dir))}
    clips = [row for row in index if row["file"] in found]
    if not clips:
        raise UserError(f"--bvh_dir {options.bvh_dir} has no file that --index names")
    rows: list[list[str]] = []
    for row in tqdm(clips, unit="clip"):
        joints = load_clip(found[row["file"]])
        rows += caption_clip(row, joints, hints, options.per_clip, options.seed)
    with atomic_write(options.out) as path, open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    print(f"{len(rows)} captions of {len({row[0] for row in rows})} clips in {options.out}")


if __name__ == "__main__":
    main()
