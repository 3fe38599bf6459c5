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
import functools
from dataclasses import astuple, dataclass
from pathlib import Path

from prepare.bandai.captions import COLUMNS, CaptionRow, caption_clip
from prepare.bandai.hints import Hints
from prepare.bvh.clip import load_clip
from prepare.bvh.files import BvhDirOptions, find_files
from prepare.tables import read_rows
from prepare.workers import JobOptions, run_jobs
from utils.errors import UserError
from utils.files import atomic_write
from utils.options import option, parse_options, with_default
from utils.seeding import SeedOptions

WORTHWHILE = 100  # clips per process: less work is done before a process has started


@dataclass
class Options(BvhDirOptions, JobOptions, SeedOptions):
    index: str = option("", "table of clips with the columns file, content, ...", required=True)
    hints: str = option("", "table of phrases with the columns kind, label, text", required=True)
    out: str = option("", "CSV table to write", required=True)
    per_clip: int = option(6, "captions of one clip, at most", minimum=1)
    seed: int = with_default(0)


@dataclass(frozen=True)
class Clip:
    """A file and its row of the index."""

    path: Path
    row: dict[str, str]


def caption_file(clip: Clip, hints: Hints, per_clip: int, seed: int) -> list[CaptionRow]:
    return caption_clip(clip.row, load_clip(clip.path), hints, per_clip, seed)


def listed_clips(options: Options) -> list[Clip]:
    """The files that the index names. Raises UserError when there is none."""
    found = {path.name: path for path in find_files(Path(options.bvh_dir))}
    columns = ("file", "content", "style", "split", "flags")
    index = [row for _, row in read_rows(options.index, "--index", columns)]
    clips = [Clip(found[row["file"]], row) for row in index if row["file"] in found]
    if not clips:
        raise UserError(f"--bvh_dir {options.bvh_dir} has no file that --index names")
    return clips


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    describe = functools.partial(
        caption_file, hints=Hints(options.hints), per_clip=options.per_clip, seed=options.seed
    )
    rows: list[CaptionRow] = []
    for found in run_jobs(describe, listed_clips(options), options.jobs, "clip", WORTHWHILE):
        rows += found
    with atomic_write(options.out) as path, open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *map(astuple, rows)])
    print(f"{len(rows)} captions of {len({row.file for row in rows})} clips in {options.out}")


if __name__ == "__main__":
    main()
