"""Compare this project's numbers with recorded numbers of the upstream implementations.

    python -m tests.verify_golden --golden_dir DIR

Prints one row per quantity and exits with 1 when one is out of tolerance or a file is unreadable.
"""

from utils.start import entry_point

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path

import tests.golden
from tests.golden.base import Golden, Row, checks_for
from utils.errors import UserError
from utils.options import option, parse_options


@dataclass
class Options:
    golden_dir: str = option("", "folder of golden .npz and .json files", required=True)


def load_checks() -> None:
    """Import every module of `tests.golden`, which registers its checks."""
    for module in pkgutil.iter_modules(tests.golden.__path__):
        importlib.import_module(f"tests.golden.{module.name}")


def verify_file(path: Path) -> list[Row]:
    """All rows of one file; an exception while checking is a failed row, not a crash."""
    rows: list[Row] = []
    try:
        golden = Golden(path)
        for check in checks_for(path.name):
            rows.extend(check(golden))
    except Exception as error:  # a golden directory may hold anything; name it and go on
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        infinite = float("inf")
        rows.append(
            Row(
                path.name, f"unreadable or not computable ({reason})", infinite, infinite, "", False
            )
        )
    return rows


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    folder = Path(options.golden_dir)
    files = sorted(p for p in folder.glob("*") if p.suffix in (".npz", ".json"))
    if not files:
        raise UserError(f"--golden_dir {folder} holds no .npz or .json file")
    load_checks()
    rows: list[Row] = []
    uncovered = []
    for path in files:
        if checks_for(path.name):
            rows += verify_file(path)
        else:
            uncovered.append(path.name)
    print(f"{'file':32} {'quantity':56} {'max abs':>10} {'max rel':>10} {'tolerance':>16}")
    for row in rows:
        verdict = "ok" if row.ok else "FAIL"
        print(
            f"{row.file:32} {row.quantity:56} {row.max_abs:10.2e} {row.max_rel:10.2e} "
            f"{row.tolerance:>16} {verdict}"
        )
    for name in uncovered:
        print(f"{name:32} not covered yet")
    failed = sum(not row.ok for row in rows)
    print(
        f"{len(rows)} quantities checked, {failed} failed, {len(uncovered)} files not covered yet"
    )
    if failed or not rows:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
