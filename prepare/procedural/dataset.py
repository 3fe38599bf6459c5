"""The embedded dataset: clips of procedural motion, their captions and splits, written to a folder.

About 60 % of the clips show one action, the rest a way of travelling followed by a gesture. A fifth
of those combinations is held out: it occurs in the test split only.
"""

import functools
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_loaders.features import process_joints
from data_loaders.skeleton import HUMANML, SKELETONS
from prepare.procedural.actions import FOLLOWERS, GESTURES, TRAVELS
from prepare.procedural.captions import Sentence, Statement, compose
from prepare.procedural.kit_body import process_kit
from prepare.procedural.motion import FPS, Controls, solve
from prepare.workers import JobOptions, run_jobs
from prepare.write_dataset import ClipEntry, DatasetWriter, NotedCaption, write_motion
from utils.options import option, with_default
from utils.outputs import OutOptions
from utils.seeding import SeedOptions

WORTHWHILE = 400  # clips per process: fewer are made before a process has started
SHORTEST, LONGEST = 2.1, 7.8  # seconds
COMBINED_SHARE = 0.4
HELD_OUT = 5  # one combination in this many is for the test split
VAL_SHARE, TEST_SHARE = 0.055, 0.075  # of the other clips


BODIES = {"humanml": process_joints, "kit": process_kit}


@dataclass
class Options(JobOptions, SeedOptions, OutOptions):
    out: str = with_default("dataset/synthetic")
    num_clips: int = option(1500, "clips", minimum=60)
    captions_per_clip: int = option(4, "captions of each clip", minimum=1)
    skeleton: str = option("humanml", "body, frame rate and unit", choices=tuple(BODIES))


@dataclass(frozen=True)
class Clip:
    joints: np.ndarray
    statements: list[Statement]
    name: str
    held_out: bool


def make_clip(rng: np.random.Generator) -> Clip:
    """One motion: joints ``[T, 22, 3]`` and what was done."""
    if rng.random() < COMBINED_SHARE:
        travel = str(rng.choice(list(TRAVELS)))
        gesture = str(rng.choice(FOLLOWERS))
        seconds, switch = rng.uniform(5.5, LONGEST), rng.uniform(2.6, 3.2)
        parts = [(TRAVELS[travel], 0.0, switch), (GESTURES[gesture], switch, seconds - 0.2)]
        name = f"{travel}+{gesture}"
        held_out = zlib.crc32(name.encode()) % HELD_OUT == 0
    else:
        actions = TRAVELS | GESTURES
        name = str(rng.choice(list(actions)))
        seconds = rng.uniform(SHORTEST + (1.4 if name in TRAVELS else 0.4), 6.0)
        parts, held_out = [(actions[name], 0.15, seconds - 0.15)], False
    controls = Controls(round(seconds * FPS) + 1)
    statements = [act(controls, start, end, rng) for act, start, end in parts]
    return Clip(solve(controls, rng), statements, name, held_out)


def make_sentences(clip: Clip, count: int, rng: np.random.Generator) -> list[Sentence]:
    """Distinct captions of one clip (fewer when the grammar runs out)."""
    found: dict[str, Sentence] = {}
    for _ in range(8 * count):
        sentence = compose(clip.statements, rng)
        found.setdefault(sentence.text, sentence)
        if len(found) == count:
            break
    return list(found.values())


def pick_split(clip: Clip, rng: np.random.Generator) -> str:
    if clip.held_out:
        return "test"
    draw = rng.random()
    return "val" if draw < VAL_SHARE else "test" if draw < VAL_SHARE + TEST_SHARE else "train"


@dataclass(frozen=True)
class WrittenClip:
    entry: ClipEntry
    length: int


def write_clip(index: int, options: Options, folder: Path) -> WrittenClip:
    """Make and write one clip; its random state is its own, so clips do not depend on others."""
    rng = np.random.default_rng([options.seed, index])
    clip = make_clip(rng)
    measurable = options.skeleton == HUMANML.name  # on other bodies facts cannot be measured
    captions = [
        NotedCaption.of(sentence.text, sentence.facts if measurable else (), sentence.meaning)
        for sentence in make_sentences(clip, options.captions_per_clip, rng)
    ]
    entry = ClipEntry(
        name=f"{index:06d}",
        split=pick_split(clip, rng),
        captions=tuple(captions),
        family="+".join(statement.family for statement in clip.statements),
        labels={"action": clip.name},
    )
    motion = BODIES[options.skeleton](clip.joints)
    return WrittenClip(entry, write_motion(folder, entry.name, motion))


def build(options: Options) -> None:
    """Write the dataset; the bytes do not depend on the number of processes."""
    amounts = {"num_clips": options.num_clips, "captions_per_clip": options.captions_per_clip}
    info = {"made_by": "prepare.synthetic", "seed": options.seed, **amounts}
    skeleton = SKELETONS[options.skeleton]
    with DatasetWriter(options.out, skeleton, options.overwrite, info) as writer:
        write = functools.partial(write_clip, options=options, folder=writer.folder)
        for clip in run_jobs(write, range(options.num_clips), options.jobs, "clip", WORTHWHILE):
            writer.register(clip.entry, clip.length)
