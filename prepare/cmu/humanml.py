"""HumanML3D's repository without its motions: which clip is cut where, captions and splits."""

import csv
import io
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prepare.bvh.cmu_rates import trial_name
from prepare.write_dataset import SPLITS
from utils.errors import UserError

COLUMNS = ("source_path", "start_frame", "end_frame", "new_name")
Place = Path | zipfile.Path


@dataclass(frozen=True)
class Cut:
    """Poses [start, end) at 20 fps of a trial. whole: the only clip of its file, from the start.

    two_people: the trial's name stands for two people who were recorded together, and HumanML3D
    has clips of both; which of the two CMU subjects is which is not published.
    """

    clip: str
    trial: str
    start: int
    end: int
    whole: bool = False
    two_people: bool = False


@dataclass(frozen=True)
class HumanML:
    """cuts: the clips from CMU, in order. splits: of every clip. texts: where caption files lie."""

    cuts: tuple[Cut, ...]
    splits: dict[str, str]
    texts: Place

    def text(self, clip: str) -> str:
        """Content of a clip's caption file; empty when there is none."""
        path = self.texts / f"{clip}.txt"
        return path.read_text(encoding="utf-8") if path.is_file() else ""


def read_humanml(path: str) -> HumanML:
    """A clone or a zip of the repository, or the folder that download_humanml_texts.sh fills.

    Raises UserError when the index, a split list or the captions are missing or damaged.
    """
    try:
        places = _places(Path(path))
        index = _read(_find(places, "index.csv", path))
        splits = {
            name: split
            for split in SPLITS
            for name in _read(_find(places, f"{split}.txt", path)).split()
        }
        return HumanML(
            read_index(index, f"--humanml {path}: index.csv"), splits, _texts(places, path)
        )
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise UserError(f"--humanml {path} cannot be read ({error})") from None


def _places(path: Path) -> list[Place]:
    """The folders in which the repository keeps its files: its top, and HumanML3D/ in it."""
    top: Place = path
    if path.is_file():
        top = zipfile.Path(path)
        inside = list(top.iterdir())
        top = inside[0] if len(inside) == 1 and inside[0].is_dir() else top
    return [top, top / "HumanML3D"]


def _find(places: list[Place], name: str, path: str) -> Place:
    for place in places:
        if (place / name).exists():
            return place / name
    raise UserError(
        f"--humanml {path} has no {name}; bring it with: bash prepare/download_humanml_texts.sh"
    )


def _read(place: Place) -> str:
    return place.read_text(encoding="utf-8-sig")


def _texts(places: list[Place], path: str) -> Place:
    """The folder of caption files, which the repository keeps in an archive of its own."""
    for place in places:
        if (place / "texts").is_dir():
            return place / "texts"
    archive = zipfile.Path(io.BytesIO(_find(places, "texts.zip", path).read_bytes()))
    return archive / "texts" if (archive / "texts").is_dir() else archive


def read_index(text: str, where: str) -> tuple[Cut, ...]:
    """The clips from CMU. Raises UserError when a column is missing or a row is malformed."""
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
    if missing:
        raise UserError(f"{where} lacks the column {' and '.join(missing)}")
    rows = []
    for row in reader:
        source = PurePosixPath(row["source_path"] or "")
        if "CMU" not in source.parts:
            continue
        trial, clip = trial_name(source.stem), PurePosixPath(row["new_name"] or "").stem
        start, end = row["start_frame"] or "", row["end_frame"] or ""
        if not (trial and clip and start.isdigit() and end.isdigit()):
            raise UserError(f"{where} line {reader.line_num}: not a clip of a CMU trial")
        rows.append((source, Cut(clip, trial, int(start), int(end))))
    uses = Counter(source for source, _ in rows)
    return tuple(
        Cut(
            **vars(cut)
            | {
                "whole": uses[source] == 1 and cut.start == 0,
                "two_people": not source.parent.name.isdigit(),
            }
        )
        for source, cut in rows
    )
