"""The interval that every table over seeds shows."""

import math

import pytest

from utils.intervals import mean_and_interval


def test_interval_is_students_t_of_the_seeds() -> None:
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2
    # t(0.975, 2 degrees of freedom) = 4.3027; the deviation is 1
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)


def test_one_value_has_no_interval() -> None:
    assert mean_and_interval([0.25]) == (0.25, 0.0)
