"""Mutation testing itself: what it changes, which modules it knows, and its table."""

import ast

import pytest
import yaml

from tests import mutants
from tests.mutants import EQUIVALENT, LEFT_OUT, TESTS, Count, record, sample
from tests.paths import ROOT

FOLDERS = ("train/preference", "train/reward_backprop", "diffusion", "rewards", "tmr")


def test_every_module_that_results_depend_on_is_listed_or_left_out_with_a_reason() -> None:
    found = {p for folder in FOLDERS for p in (ROOT / folder).glob("*.py") if p.stat().st_size}
    names = {str(path.relative_to(ROOT)) for path in found}
    assert set(TESTS) | set(LEFT_OUT) == names | {"eval/metrics.py", "eval/protocol.py"}
    assert not set(TESTS) & set(LEFT_OUT)
    assert all((ROOT / test).is_file() for tests in TESTS.values() for test in tests)


def test_reasons_are_given_for_mutants_that_there_are() -> None:
    for module, reasons in yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")).items():
        source = (ROOT / module).read_text(encoding="utf-8")
        names = {mutant.name for mutant, _ in mutants.mutants(source)}
        assert set(reasons) <= names, f"{module}: {set(reasons) - names}"


def test_a_mutant_is_one_change_which_is_taken_back() -> None:
    source = "def f(a, b):\n    return a < b and a + 1\n"
    found = [(mutant.change, ast.unparse(tree)) for mutant, tree in mutants.mutants(source)]
    bodies = {change: text.splitlines()[1].strip() for change, text in found}
    assert bodies == {
        "And Or": "return a < b or a + 1",
        "Lt LtE": "return a <= b and a + 1",
        "Add Sub": "return a < b and a - 1",
        "1 2": "return a < b and a + 2",
    }


@pytest.mark.parametrize(("share", "count"), [(1.0, 40), (0.25, 10), (0.0, 1)])
def test_a_share_is_drawn_by_the_seed(share: float, count: int) -> None:
    chosen = sample(40, share, seed=0)
    assert len(chosen) == count
    assert chosen == sample(40, share, seed=0)
    assert chosen <= set(range(40))
    assert share in (0.0, 1.0) or chosen != sample(40, share, seed=1)
    assert sample(0, share, seed=0) == set()


def test_rows_of_the_table_are_replaced(tmp_path, monkeypatch) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(mutants, "PAGE", page)
    page.write_text(f"# Page\n\n{mutants.TABLE}\nrest\n")
    record({"rewards/tmr.py": Count(4, 3, 1, 1.0)})
    record({"diffusion/gaussian.py": Count(10, 8, 0, 0.25)})
    record({"rewards/tmr.py": Count(4, 4, 0, 1.0)})
    assert page.read_text() == (
        f"# Page\n\n{mutants.TABLE}"
        "| `diffusion/gaussian.py` | 25% | 10 | 8 | 0 | 80% |\n"
        "| `rewards/tmr.py` | all | 4 | 4 | 0 | 100% |\n"
        "\nrest\n"
    )
