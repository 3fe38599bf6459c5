"""No file ends in a traceback, takes 5 s or 1 GB: it is accepted, or refused with a `UserError`.

python -m pytest tests/fuzz              500 files
python -m pytest tests/fuzz -m long      100,000 files: an hour or more
"""

import resource
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import Edit, apply, edits
from tests.fuzz.targets import TARGETS, Target
from utils.errors import UserError
from utils.seals import DIGITS, ENTRY, ENTRY_END, TAIL, ZIP_END, ZIP_END_SIZE

SECONDS, BYTES = 5.0, 2**30
FEW, MANY = 500 // len(TARGETS) + 1, 100_000 // len(TARGETS) + 1


@contextmanager
def bounded() -> Iterator[None]:
    """Address space for another gigabyte and seconds of computing, no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, limits[1]))
    started = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.process_time() - started < SECONDS


def unsealed(content: bytes) -> bytes:
    """As other projects write it: without the digest, which would refuse every change."""
    if content.startswith(ENTRY):
        return b"{\n" + content[len(ENTRY) + DIGITS + len(ENTRY_END) :]
    if content[: -DIGITS or None].endswith(TAIL):
        content = content[: -DIGITS - len(TAIL)]
        if content[-ZIP_END_SIZE:].startswith(ZIP_END):
            content = content[:-2] + b"\0\0"  # the length of the comment that held it
    return content.replace(b'"sha256":"', b'"unused":"', 1).replace(b'"sealed"', b'"unsaid"', 1)


def try_many(target: Target, root: Path, count: int) -> None:
    folder = root / "files"
    target.write(folder)
    whole = {name: unsealed((folder / name).read_bytes()) for name in target.files}

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=count == FEW,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(target.files), edits)
    def run(name: str, changes: list[Edit]) -> None:
        (folder / name).write_bytes(apply(whole[name], changes))
        try:
            with warnings.catch_warnings(), bounded(), suppress(UserError):
                warnings.simplefilter("ignore")
                target.read(folder)
        finally:
            (folder / name).write_bytes(whole[name])

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_whole_files_are_accepted(name: str, tmp_path) -> None:
    target = TARGETS[name]
    target.write(tmp_path / "files")
    with suppress(UserError) if name == "sweep" else bounded():
        target.read(tmp_path / "files")


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_mistakes_in_every_kind_of_file(name: str, tmp_path) -> None:
    try_many(TARGETS[name], tmp_path, FEW)


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_many_mistakes_in_every_kind_of_file(name: str, tmp_path) -> None:
    try_many(TARGETS[name], tmp_path, MANY)
