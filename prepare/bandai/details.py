"""Quantities that a caption may state: rounded, and only where they hold with a margin."""

from data_loaders.facts import Fact
from prepare.bandai.evidence import Evidence
from prepare.bandai.grammar import Detail, number_phrases

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
