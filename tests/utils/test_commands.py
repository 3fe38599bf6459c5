"""Commands in messages run as they are printed."""

import shlex
from pathlib import Path

import pytest

from tests.paths import ROOT
from utils import commands
from utils.commands import typed


@pytest.fixture
def venv(tmp_path, monkeypatch) -> Path:
    """The ``bin`` of an environment that runs the program, not in PATH."""
    folder = tmp_path / "a venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "python3"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(commands.sys, "executable", str(folder / "python3"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return folder


def test_an_activated_environment_needs_no_path(venv: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", f"{venv}:/usr/bin:/bin")
    assert typed("run python -m train.demo") == "run python -m train.demo"


def test_elsewhere_the_interpreter_has_its_path(venv: Path) -> None:
    words = shlex.split(typed("python -m train.demo"))
    assert words == [str(venv / "python3"), "-m", "train.demo"]


def test_the_path_is_short_where_the_environment_is_made(venv: Path, monkeypatch) -> None:
    monkeypatch.chdir(venv.parent)
    assert typed("python -m train.demo") == "bin/python3 -m train.demo"


def test_scripts_are_named_from_where_the_program_runs(tmp_path, monkeypatch) -> None:
    command = "bash prepare/download_tmr.sh"
    monkeypatch.chdir(ROOT)
    assert typed(command) == command
    monkeypatch.chdir(tmp_path)
    assert Path(shlex.split(typed(command))[1]).is_file()
