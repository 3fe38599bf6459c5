"""Write docs/results.md from its text and from the tables in docs/results.

    python -m eval.results_page
    python -m eval.results_page --check      exit code 1 where the page is not up to date

docs/results/page.md is the text. A line of it stands for rows and columns of one table:

    {{FILE.csv | COLUMN; COLUMN; ... | ROW; ROW; ...}}

Without rows, or without columns, all of them are shown. A row is named by its first cell.
"""

from utils.start import entry_point

import csv
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import write_text
from utils.options import option, parse_options
from utils.places import here_or_project
from utils.tables import markdown_table

DIRECTIVE = re.compile(r"^\{\{(.*)\}\}$", re.MULTILINE)


@dataclass
class Options:
    text: str = option("docs/results/page.md", "text of the page; its tables lie beside it")
    output: str = option("docs/results.md", "page to write")
    check: bool = option(False, "only compare the page with what would be written")


def rows_by_name(rows: list[list[str]], names: list[str], path: Path) -> list[list[str]]:
    """Raises UserError for a name that no row has."""
    known = {row[0]: row for row in rows}
    if missing := [name for name in names if name not in known]:
        raise UserError(f"{path} has no row {', '.join(missing)}; it has {', '.join(known)}")
    return [known[name] for name in names]


def table(directive: str, folder: Path) -> str:
    """The Markdown of ``FILE.csv | columns | rows``. Raises UserError for what is not there."""
    file, columns, names = ([*directive.split("|"), "", ""])[:3]
    path = folder / file.strip()
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        raise UserError(f"{path} is not a readable table; put the CSV file there") from None
    wanted = _names(columns) or header
    if missing := [title for title in wanted if title not in header]:
        raise UserError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header)}")
    places = [header.index(title) for title in wanted]
    if _names(names):
        rows = rows_by_name(rows, _names(names), path)
    return markdown_table(wanted, [[row[place] for place in places] for row in rows])


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(";") if name.strip()]


def page(text: Path) -> str:
    """The text with its tables."""
    if not text.is_file():
        raise UserError(f"--text {text} does not exist; run this in the project's folder")
    content = text.read_text(encoding="utf-8")
    return DIRECTIVE.sub(lambda found: table(found.group(1), text.parent), content)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    written, output = page(here_or_project(options.text)), here_or_project(options.output)
    if not options.check:
        write_text(output, written)
        print(output)
    elif not output.is_file() or output.read_text(encoding="utf-8") != written:
        print(f"{output} is not what python -m eval.results_page writes", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
