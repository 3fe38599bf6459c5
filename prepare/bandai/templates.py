"""Sentence templates of the motion capture actions, each in two disjointly worded halves.

Slots that a clip cannot fill stay empty, so every template reads well without its details. Words:
{side} and {other} of gaits and turns, {hands}, {arms} and {them} of gestures. Details: {distance},
{pace}, {seconds}, {angle}, {of_angle}, {count}, {above}, {in_place}.
"""

Halves = tuple[tuple[str, ...], tuple[str, ...]]

GAITS: dict[str, Halves] = {
    "walk": (
        (
            "{subject} walks forward {distance} {pace}",
            "{subject} walks {pace} straight ahead {seconds}",
            "{subject} walks {distance} in a straight line {pace}",
            "{subject} walks {pace} across the room {seconds}",
        ),
        (
            "{subject} is walking straight ahead {distance} {pace}",
            "{subject} takes several steps forward {pace}, {distance} in all",
            "{subject} goes forward on foot {seconds} {pace}",
            "{subject} moves {distance} ahead at a walk {pace}",
        ),
    ),
    "run": (
        (
            "{subject} runs forward {distance}",
            "{subject} runs straight ahead {seconds}",
            "{subject} runs {distance} in a straight line",
        ),
        (
            "{subject} is running straight ahead {distance}",
            "{subject} goes {distance} forward at a run",
            "{subject} moves across the room at a run {seconds}",
        ),
    ),
    "jog": (
        (
            "{subject} jogs forward {distance}",
            "{subject} jogs straight ahead {seconds}",
            "{subject} jogs {distance} in a straight line",
        ),
        (
            "{subject} is jogging straight ahead {distance}",
            "{subject} goes {distance} forward at a jog",
            "{subject} trots across the room {seconds}",
        ),
    ),
    "dash": (
        (
            "{subject} sprints forward {distance}",
            "{subject} dashes straight ahead {distance}",
            "{subject} sprints in a straight line {seconds}",
        ),
        (
            "{subject} leans forward and sprints {distance}",
            "{subject} makes a quick dash forward {seconds}",
            "{subject} is running as fast as possible {distance}",
        ),
    ),
    "walk-back": (
        (
            "{subject} walks backwards {distance} {pace}",
            "{subject} walks {pace} backward in a straight line {seconds}",
            "{subject} walks {distance} straight back {pace}",
        ),
        (
            "{subject} takes several steps backward {pace}",
            "{subject} backs up {distance} while still facing forward",
            "{subject} is stepping backwards {pace} {seconds}",
            "{subject} retreats {distance} without turning around",
        ),
    ),
    "walk-sideways": (
        (
            "{subject} walks to the {side} {distance} {pace}",
            "{subject} walks sideways to the {side} {seconds} while looking to the front",
            "{subject} walks diagonally to the {side} {distance}",
        ),
        (
            "{subject} moves to the {side} with crossing steps {distance}",
            "{subject} is stepping sideways to the {side} {pace} {seconds}",
            "{subject} goes off to the {side} {distance} with the head turned to the {other}",
        ),
    ),
    "walk-turn": (
        (
            "{subject} walks forward and then turns to the {side} {angle}",
            "{subject} walks {distance}, turning {side} {angle} on the way",
            "{subject} walks {pace} around a corner to the {side} {seconds}",
            "{subject} walks forward, turns {side} {angle} and keeps walking {pace}",
            "{subject} walks {distance} in a curve to the {side}",
        ),
        (
            "{subject} makes a {side} turn {of_angle} while walking {distance}",
            "{subject} is walking {pace} and takes a turn {of_angle} to the {side}",
            "{subject} heads straight on, then goes {side} {angle}",
            "{subject} changes direction to the {side} {angle} while walking {pace}",
            "{subject} takes a few steps, turns {side} {angle} and moves on {seconds}",
        ),
    ),
}
TURNS_AROUND: Halves = (
    ("{subject} walks and turns around {seconds}", "{subject} turns around while walking"),
    ("{subject} is walking and changes direction {seconds}", "{subject} takes a walk with turns"),
)

# Gestures by what can be seen: (the hand is raised above the shoulder, it waves widely)
WAVES: dict[tuple[bool, bool], tuple[str, Halves]] = {
    (True, True): (
        "wave",
        (
            (
                "{subject} raises {hands} {above} and waves {them} from side to side {count}",
                "{subject} waves {hands} {above} {count} {seconds}",
                "{subject} stands {in_place} and waves with {arms} {count}",
                "{subject} waves {arms} from side to side {seconds}",
            ),
            (
                "{subject} lifts {arms} {above}, waves {count}, and puts {them} back down",
                "{subject} is waving {hands} {above} {seconds}",
                "with {hands} up, {subject} waves {count} {in_place}",
                "{subject} says goodbye by waving {arms} {count} {seconds}",
            ),
        ),
    ),
    (False, True): (
        "low wave",
        (
            (
                "{subject} waves {hands} at shoulder height {count}",
                "{subject} stands {in_place} and waves {hands} below the head {seconds}",
                "{subject} waves {arms} from side to side at the shoulder {count}",
            ),
            (
                "{subject} lifts {hands} to the shoulder and waves {count}",
                "{subject} is waving {hands} close to the shoulder {seconds}",
                "{subject} greets with a low wave of {hands} {count} {seconds}",
            ),
        ),
    ),
    (True, False): (
        "small wave",
        (
            (
                "{subject} raises {hands} {above} and waves slightly",
                "{subject} waves a little with {hands} up {seconds}",
                "{subject} stands {in_place} with {hands} up and waves from the wrist",
            ),
            (
                "{subject} lifts {arms} {above} and gives a small wave",
                "{subject} holds {hands} up {seconds} and only moves the wrist to wave",
                "with {arms} up, {subject} gives a small wave {in_place}",
            ),
        ),
    ),
    (False, False): (
        "small low wave",
        (
            (
                "{subject} lifts {hands} to the shoulder and waves slightly",
                "{subject} waves a little with {hands} at shoulder height {seconds}",
                "{subject} stands {in_place} and waves {hands} slightly, close to the body",
            ),
            (
                "{subject} gives a small, low wave with {hands} {seconds}",
                "{subject} holds {hands} at the shoulder and waves from the wrist",
                "{subject} makes a small wave with {hands} close to the shoulder {in_place}",
            ),
        ),
    ),
}
RAISES: dict[bool, tuple[str, Halves]] = {
    True: (
        "raise",
        (
            (
                "{subject} raises {hands} {above} and lowers {them} again",
                "{subject} raises {arms} {above} {count} {seconds}",
                "{subject} stands {in_place} and raises {hands} {above}",
                "{subject} puts {hands} up {above} {count} and then brings {them} down",
            ),
            (
                "{subject} lifts {arms} up {above} {count}",
                "{subject} is lifting {hands} {above} {in_place}",
                "{subject} brings {hands} up {above}, then drops {them} {seconds}",
                "{subject} moves {arms} up {above} {count} and back down {seconds}",
            ),
        ),
    ),
    False: (
        "low raise",
        (
            (
                "{subject} raises {hands} to shoulder height and lowers {them} again",
                "{subject} raises {arms} a little {seconds}",
                "{subject} stands {in_place} and raises {hands} only to the shoulder",
            ),
            (
                "{subject} lifts {hands} up to the shoulder and drops {them} {seconds}",
                "{subject} gently moves {hands} up to shoulder height {in_place}",
                "{subject} is lifting {arms} no higher than the shoulder",
            ),
        ),
    ),
}
BOWS: dict[bool, tuple[str, Halves]] = {
    True: (
        "bow",
        (
            (
                "{subject} bows forward and stands up straight again",
                "{subject} takes a deep bow {in_place}",
                "{subject} bows {seconds} and rises again",
            ),
            (
                "{subject} bends forward at the waist, then straightens up {seconds}",
                "{subject} is bending the upper body far forward to bow",
                "{subject} lowers the head and upper body in a deep bow",
            ),
        ),
    ),
    False: (
        "slight bow",
        (
            (
                "{subject} bows slightly {in_place}",
                "{subject} takes a small bow {seconds}",
                "{subject} bows a little and stands up straight again",
            ),
            (
                "{subject} leans forward a little to bow, then straightens up",
                "{subject} makes only a slight bow {seconds}",
                "{subject} is lowering the head in a small bow {in_place}",
            ),
        ),
    ),
}
PUNCHES: Halves = (
    (
        "{subject} throws several punches with the {side} hand",
        "{subject} punches forward repeatedly with the {side} fist {seconds}",
    ),
    (
        "{subject} is boxing, punching from a guard with the {side} hand",
        "from a fighting stance, {subject} strikes forward with the {side} fist",
    ),
)
KICKS: Halves = (
    (
        "{subject} does several spinning kicks with the {side} leg",
        "{subject} kicks high with the {side} foot while turning around",
    ),
    (
        "{subject} spins around and kicks with the {side} foot",
        "{subject} is performing roundhouse kicks with the {side} leg {seconds}",
    ),
)
