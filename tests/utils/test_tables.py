"""The one writer of Markdown tables."""

import pytest

from utils.tables import markdown_table


def test_a_table_is_a_line_per_row() -> None:
    table = markdown_table(["", "FID"], [["base", "0.5"], ["sopo", "**0.3**"]])
    assert table.splitlines() == ["|  | FID |", "|---|---|", "| base | 0.5 |", "| sopo | **0.3** |"]


def test_bars_in_cells_do_not_divide_them() -> None:
    assert markdown_table(["a|b"], [["c | d"]]).splitlines()[2] == "| c \\| d |"


def test_a_row_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="2 cells under 1 titles"):
        markdown_table(["one"], [["1", "2"]])
