"""The layouts of picture datasets, each read into the same rows.

FOLDER/metadata.jsonl          image folder: file_name and text per line, and, for offline
                               pairs, loser, another file name; also in train/, validation/, test/
FOLDER/000.png, 000.txt        a caption in a text file beside each picture
FOLDER/*.parquet               Pick-a-Pic v2: caption, jpg_0, jpg_1, label_0, label_1
FOLDER/train.json, test.json   HPDv2: prompt with file_path and human_preference, or with
                               image_path and rank (1 = best)
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loaders.images.sources import CellSource, FileSource, Source
from utils.errors import UserError
from utils.extras import extra
from utils.files import read_json

METADATA = "metadata.jsonl"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
PICKAPIC = ["caption", "label_0", "label_1", "jpg_0", "jpg_1"]


@dataclass(frozen=True)
class Row:
    """A picture with its caption, and, in pairs, the picture that people liked less.

    `key` names it in its dataset.
    """

    key: str
    caption: str
    picture: Source
    loser: Source | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that is left out, and why."""

    name: str
    reason: str


Rows = Iterator[Row | BadRow]


def read_rows(folder: Path, split: str, caption_column: str = "text") -> Rows:
    """Every row of a split, the bad ones too; pictures are not opened yet.

    A folder without splits is all ``train``. Raises UserError when it has none of the layouts.
    """
    places = [folder / name for name in SPLIT_NAMES[split]]
    inner = next((place for place in places if place.is_dir()), None)
    files = [place.with_suffix(".json") for place in places]
    listed = next((path for path in files if path.is_file()), None)
    if listed is not None:
        return read_hpd(listed, folder)
    tables = tables_of(folder, split)
    if tables:
        return read_pickapic(tables)
    place = inner or (folder if split == "train" else None)
    if place is None:
        raise UserError(f"{folder} has no {split} split")
    if (place / METADATA).is_file():
        return read_image_folder(place, caption_column)
    if any(place.glob("*.txt")):
        return read_text_files(place)
    raise UserError(
        f"{place} holds no captions: it needs {METADATA}, text files beside the pictures, parquet "
        "files of Pick-a-Pic, or the JSON files of HPDv2"
    )


def has_split(folder: Path, split: str) -> bool:
    """Is there a folder, a JSON file or a table of that name?"""
    places = [folder / name for name in SPLIT_NAMES[split]]
    named = any(p.is_dir() or p.with_suffix(".json").is_file() for p in places)
    return named or bool(tables_of(folder, split))


def tables_of(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split; those that name no split are all ``train``."""
    paths = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
    names = {name: other for name, words in SPLIT_NAMES.items() for other in words}
    known = {
        split_name for path in paths for split_name in names if path.name.startswith(split_name)
    }
    if not known and split == "train":
        return paths
    return [p for p in paths if any(p.name.startswith(word) for word in SPLIT_NAMES[split])]


def read_image_folder(folder: Path, caption_column: str) -> Rows:
    lines = (folder / METADATA).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        name = f"{METADATA} line {number}"
        try:
            values = json.loads(line)
            file, caption = str(values["file_name"]), values[caption_column]
        except (ValueError, TypeError, KeyError) as error:
            yield BadRow(name, f"no {error}" if isinstance(error, KeyError) else "no JSON object")
            continue
        loser = FileSource(folder / str(values["loser"])) if values.get("loser") else None
        key = str(values.get("key", file))
        yield checked(name, Row(key, str(caption or ""), FileSource(folder / file), loser))


def read_text_files(folder: Path) -> Rows:
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES):
        text = path.with_suffix(".txt")
        if text.is_file():
            caption = text.read_text(encoding="utf-8").strip()
            yield checked(path.name, Row(path.name, caption, FileSource(path)))
        else:
            yield BadRow(path.name, f"no {text.name}")


def read_pickapic(tables: list[Path]) -> Rows:
    """Winner and loser by the labels; ties are left out."""
    parquet = extra("pyarrow.parquet")
    for path in tables:
        table = parquet.ParquetFile(path)
        missing = [name for name in PICKAPIC if name not in table.schema_arrow.names]
        if missing:
            raise UserError(f"{path} is not Pick-a-Pic: it has no column {missing[0]}")
        for group in range(table.num_row_groups):
            for row, values in enumerate(table.read_row_group(group, PICKAPIC[:3]).to_pylist()):
                yield _judged(path, group, row, values)


def _judged(path: Path, group: int, row: int, values: Mapping[str, Any]) -> Row | BadRow:
    pictures = [CellSource(path, group, row, f"jpg_{n}") for n in (0, 1)]
    name = pictures[0].name
    first, second = (values[f"label_{n}"] for n in (0, 1))
    if first is None or second is None or first == second:
        return BadRow(name, "a tie")
    winner, loser = pictures if first > second else pictures[::-1]
    return checked(name, Row(name, str(values["caption"] or ""), winner, loser))


def read_hpd(path: Path, folder: Path) -> Rows:
    """The pictures lie in a folder named after the split, or beside the file."""
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path} is not HPDv2: it holds no list")
    root = folder / path.stem if (folder / path.stem).is_dir() else folder
    for number, values in enumerate(content):
        name = f"{path.name} entry {number}"
        try:
            ranked = _ranked(values)
            caption = str(values["prompt"])
        except (KeyError, TypeError, ValueError):
            yield BadRow(name, "no prompt with pictures and a preference")
            continue
        if len(ranked) < 2:
            yield BadRow(name, "a tie")
            continue
        winner, loser = (FileSource(root / ranked[place]) for place in (0, -1))
        yield checked(name, Row(f"{path.stem}/{number}", caption, winner, loser))


def _ranked(values: Mapping[str, Any]) -> list[str]:
    """File names, the best first; one alone where nothing is preferred."""
    if "human_preference" in values:
        files, worth = values["file_path"], [float(v) for v in values["human_preference"]]
    else:
        files, worth = values["image_path"], [-float(v) for v in values["rank"]]
    order = sorted(zip(worth, files, strict=True), key=lambda item: -item[0])
    return [str(file) for _, file in order] if order[0][0] > order[-1][0] else [str(files[0])]


def checked(name: str, row: Row) -> Row | BadRow:
    """The row, where it has a caption and its files are there."""
    if not row.caption.strip():
        return BadRow(name, "an empty caption")
    for source in (row.picture, row.loser):
        if isinstance(source, FileSource) and not source.path.is_file():
            return BadRow(name, f"{source.path} does not exist")
    return row
