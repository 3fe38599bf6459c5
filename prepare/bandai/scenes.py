"""What a clip shows, by its label and its measurements."""

from collections.abc import Callable
from dataclasses import dataclass

from data_loaders.facts import Fact
from prepare.bandai.details import (
    gesture_details,
    seconds_detail,
    stroke_detail,
    travel_details,
    turn_details,
)
from prepare.bandai.evidence import Evidence
from prepare.bandai.grammar import Detail, Scene
from prepare.bandai.hints import Hints
from prepare.bandai.templates import BOWS, GAITS, KICKS, PUNCHES, RAISES, TURNS_AROUND, WAVES

WIDE_WAVE = 6  # strokes; lifting and lowering a hand that waves by the wrist alone makes up to five
OTHER_SIDE = {"left": "right", "right": "left"}


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


@dataclass(frozen=True)
class Gesture:
    """How a labelled gesture is described, and the side of its label."""

    scene: Callable[[str, Evidence], Scene]
    side: str


GAIT_CONTENTS = frozenset({
    "walk", "run", "dash", "walk-back", "walk-left", "walk-right", "walk-turn-left",
    "walk-turn-right",
})  # fmt: skip
HANDS = {"left-hand": "left", "right-hand": "right", "both-hands": "both"}
GESTURES = {
    "bye": Gesture(wave_scene, "right"),
    "byebye": Gesture(wave_scene, "both"),
    "respond": Gesture(raise_scene, "left"),
    **{f"wave-{hands}": Gesture(wave_scene, side) for hands, side in HANDS.items()},
    **{f"raise-up-{hands}": Gesture(raise_scene, side) for hands, side in HANDS.items()},
}


def make_scene(row: dict[str, str], evidence: Evidence, hints: Hints) -> Scene:
    """Everything that can be said of a clip of the index. Raises UserError for unknown actions."""
    content = row["content"]
    if content in GAIT_CONTENTS:
        return gait_scene(content, evidence, row["style"], row["flags"])
    if content in GESTURES:
        gesture = GESTURES[content]
        return gesture.scene(gesture.side, evidence)
    if content == "bow":
        return bow_scene(evidence)
    if content in ("punch", "kick"):
        return strike_scene(content, evidence, hints)
    return Scene(content, content, hints.sentences(content))
