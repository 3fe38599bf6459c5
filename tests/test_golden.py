"""Every golden file next to the repository, through the checks of ``tests.verify_golden``."""

import pytest

from tests.paths import GOLDEN_DIR, needs_golden
from tests.verify_golden import checks_for, load_checks, verify_file

load_checks()
FILES = sorted(p.name for p in GOLDEN_DIR.glob("*") if checks_for(p.name))


@needs_golden
@pytest.mark.parametrize("name", FILES)
def test_numbers_equal_upstream(name: str) -> None:
    rows = verify_file(GOLDEN_DIR / name)
    assert rows, f"{name} is covered by a check that compares nothing"
    failed = [f"{row.quantity}: {row.max_abs:.2e} > {row.tolerance}" for row in rows if not row.ok]
    assert not failed, failed


def test_a_wrong_number_fails(tmp_path) -> None:
    import numpy as np

    from tests.golden.base import Golden

    np.savez(tmp_path / "x.npz", a=np.ones(3))
    golden = Golden(tmp_path / "x.npz")
    assert golden.close("a", np.ones(3), golden["a"], atol=1e-6).ok
    assert not golden.close("a", np.ones(3) + 1e-3, golden["a"], atol=1e-6).ok
    assert not golden.close("a", np.full(3, np.nan), golden["a"], atol=1e-6).ok
    assert not golden.close("a", np.ones(4), golden["a"], atol=1e-6).ok
