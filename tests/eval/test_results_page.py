"""The page of results is what its text and the tables give."""

from pathlib import Path

import pytest

from eval.results_page import page, table
from tests.paths import ROOT
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["model,R@1,FID", "base,0.5,22", "sopo,0.6 ± 0.1,16"]
    (tmp_path / "motion.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert page(ROOT / "docs/results/page.md") == written


def test_rows_and_columns_are_chosen_by_name_and_in_order(folder: Path) -> None:
    text = folder / "page.md"
    text.write_text("before\n\n{{motion.csv | FID; model | sopo; base}}\n\nafter\n")
    assert page(text).splitlines() == [
        *(
            "before",
            "",
            "| FID | model |",
            "|---|---|",
            "| 16 | sopo |",
            "| 22 | base |",
            "",
            "after",
        )
    ]
    assert table("motion.csv", folder).count("\n") == 3


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("none.csv", "not a readable table"),
        ("motion.csv | R@9", "no column R@9; it has model, R@1, FID"),
        ("motion.csv | | sft", "no row sft; it has base, sopo"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, directive: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        table(directive, folder)
