"""Read captions of motion files from a CSV table.

    file,caption,facts,meaning,family,split,labels
    walk_01.bvh,a person turns left,"[[""turn_side"", ""left""]]",,turn,train,"{""style"": ""old""}"

One row per caption; a file may have several rows. Only `file` and `caption` are required.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from data_loaders.captions import MAX_CHARACTERS
from data_loaders.facts import FACT_CHECKS, Fact
from prepare.tables import read_rows
from prepare.write_dataset import SPLITS, NotedCaption
from utils.errors import UserError


@dataclass
class FileCaptions:
    """What the table says about one file."""

    captions: list[NotedCaption] = field(default_factory=list)
    family: str = ""
    split: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def merge(self, other: "FileCaptions") -> None:
        """Add more rows of the same file. Raises ValueError when the splits contradict."""
        if self.split and other.split and self.split != other.split:
            raise ValueError(f"one file is in two splits, {self.split} and {other.split}")
        self.captions += other.captions
        self.family = other.family or self.family
        self.split = other.split or self.split
        self.labels |= other.labels

    def meaning(self) -> str:
        """Of the first caption, which is the one that validation takes."""
        return self.captions[0].meaning or self.captions[0].caption.text


@dataclass
class CaptionTable:
    """files: by the name in column `file`. unusable: "line 7: the caption is empty", ..."""

    files: dict[str, FileCaptions]
    unusable: list[str]


def read_caption_table(path: str | Path) -> CaptionTable:
    """Rows that cannot be used are left out and listed in `unusable`.

    Raises UserError when the file is missing, lacks a required column, or has no usable row.
    """
    table = CaptionTable(defaultdict(FileCaptions), [])
    for line, row in read_rows(path, "--captions", ("file", "caption")):
        try:
            captions = _parse_row(row)
            table.files[row["file"]].merge(captions)
        except ValueError as error:
            table.unusable.append(f"line {line}: {error}")
    if not table.files:
        first = f" ({table.unusable[0]})" if table.unusable else ""
        raise UserError(f"--captions {path} has no usable line{first}")
    return table


def read_split_file(path: str | Path) -> dict[str, str]:
    """A CSV file with columns `file` and `split` -> split of each file."""
    splits = {}
    for line, row in read_rows(path, "--split_file", ("file", "split")):
        if row["split"] not in SPLITS:
            raise UserError(
                f"--split_file {path} line {line}: split {row['split']!r} is unknown; "
                f"choose one of {', '.join(SPLITS)}"
            )
        splits[row["file"]] = row["split"]
    return splits


def _parse_row(row: dict[str, str]) -> FileCaptions:
    """Raises ValueError when the row cannot be used."""
    text, split = " ".join(row["caption"].lower().split()), row.get("split", "")
    if not row["file"] or not text:
        raise ValueError(f"the {'caption' if row['file'] else 'file'} is empty")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a caption must not be longer than {MAX_CHARACTERS} characters")
    if "#" in text:
        raise ValueError("a caption must not contain '#'")
    if split and split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    noted = NotedCaption.of(text, _parse_facts(row.get("facts", "")), row.get("meaning", ""))
    labels = _parse_labels(row.get("labels", ""))
    return FileCaptions([noted], row.get("family", ""), split, labels)


def _parse_facts(text: str) -> tuple[Fact, ...]:
    """A JSON list of [kind, value] pairs or of {"kind": ..., "value": ...}."""
    content = _parse_json(text, "facts") or []
    try:
        pairs = [(f["kind"], f["value"]) if isinstance(f, dict) else tuple(f) for f in content]
        facts = tuple(Fact(kind, value) for kind, value in pairs)
        unknown = [fact.kind for fact in facts if fact.kind not in FACT_CHECKS]
    except (KeyError, TypeError, ValueError):
        raise ValueError("facts must be a JSON list of [kind, value]") from None
    if unknown:
        raise ValueError(f"fact {unknown[0]!r} is unknown; known are {', '.join(FACT_CHECKS)}")
    return facts


def _parse_labels(text: str) -> dict[str, str]:
    content = _parse_json(text, "labels") or {}
    if not isinstance(content, dict):
        raise ValueError("labels must be a JSON object")
    return {str(key): str(value) for key, value in content.items()}


def _parse_json(text: str, column: str) -> object:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{column} is not valid JSON ({error})") from None
