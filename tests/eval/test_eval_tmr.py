import math
from dataclasses import replace

import pytest

from eval.eval_tmr import Figures, Options, format_table, mean_and_interval
from utils.errors import UserError

ROW = Figures(
    reward=0.7,
    r_at_1=0.5,
    r_at_2=0.6,
    r_at_3=0.7,
    r_at_1_split=0.1,
    r_at_1_hard=None,
    hard_chance=None,
    fid=0.01,
    facts=0.8,
    side_facts=0.75,
    foot_skating=0.1,
    invalid_motions=0,
)


def test_interval_is_students_t_of_the_seeds() -> None:
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2
    # t(0.975, 2 degrees of freedom) = 4.3027; the deviation is 1
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)


def test_one_seed_has_no_interval_and_undefined_figures_are_dashes() -> None:
    row = format_table({"base": [ROW]}).splitlines()[-1]
    assert "±" not in row
    assert "| - |" in row


def test_seeds_of_one_name_share_a_row() -> None:
    table = format_table({"base": [ROW], "sopo": [ROW, replace(ROW, reward=0.9)]})
    rows = table.splitlines()
    assert len(rows) == 4
    # half the interval of 0.7 and 0.9: 12.706 x 0.1
    assert rows[-1].startswith("| sopo | 0.800 ± 1.271 |")


def test_names_must_match_the_checkpoints() -> None:
    options = Options(model_path=["a.pt", "b.pt"], names=["a"])
    with pytest.raises(UserError, match="1 names for 2 checkpoints"):
        options.validate()
