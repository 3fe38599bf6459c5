"""CSV tables that the user writes."""

import csv
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError


def read_rows(
    path: str | Path, option: str, required: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Pairs (line number, row) with stripped values; missing cells are empty.

    Raises UserError, naming the option, when the file cannot be read or lacks a required column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in required if name not in (reader.fieldnames or [])]
            if missing:
                raise UserError(
                    f"{option} {path} lacks the column {' and '.join(missing)}; "
                    f"its first line must name the columns"
                )
            for row in reader:
                cells = {key: (row[key] or "").strip() for key in reader.fieldnames or []}
                yield reader.line_num, cells
    except OSError as error:
        raise UserError(f"{option} {path} cannot be read ({error.strerror})") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{option} {path} is not a readable CSV file ({error})") from None
