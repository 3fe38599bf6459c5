"""How sure a mean over seeds is."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import sem
from scipy.stats import t as student_t


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; 0 for a single value."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, 0.0
    return mean, float(student_t.ppf(0.975, len(values) - 1) * sem(values))
