"""Tables in Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from utils.errors import UserError
from utils.options import option


@dataclass
class NamesOptions:
    """For every script that shows several models or runs beside each other."""

    names: list[str] = option(
        [], "a name for each; those of one name are seeds; none = the folders' names"
    )

    def check_names(self, count: int, kind: str) -> None:
        """Raises UserError unless each of the `count` has a name, or none."""
        if self.names and len(self.names) != count:
            raise UserError(f"--names holds {len(self.names)} names for {count} {kind}")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """One line per row, without a last line break; bars inside cells are escaped.

    Raises ValueError for a row that has not one cell per title.
    """
    lines = [_line(header), "|---" * len(header) + "|"]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells under {len(header)} titles: {row}")
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
