"""What is installed: one range of Pythons, one set of pins, and every file that a program reads."""

import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
MAKEFILE = (ROOT / "Makefile").read_text()
CONDA = yaml.safe_load((ROOT / "sopo_environment.yml").read_text())
PINS = dict(
    line.lower().split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)
INSTALLED = re.search(r"--editable '\.\[(.*)]'", MAKEFILE)[1].split(",")


def requirements() -> list[Requirement]:
    """Of what `make setup` installs, without their dependencies."""
    extras = [line for name in INSTALLED for line in PROJECT["optional-dependencies"][name]]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_pin_lies_in_its_stated_range(requirement: Requirement) -> None:
    assert PINS[requirement.name] in requirement.specifier


def test_the_conda_file_installs_what_make_installs() -> None:
    python = next(line for line in CONDA["dependencies"] if str(line).startswith("python="))
    pip = next(line["pip"] for line in CONDA["dependencies"] if isinstance(line, dict))
    assert python.removeprefix("python=") in SpecifierSet(PROJECT["requires-python"])
    assert pip == ["--constraint constraints.txt", f"--editable .[{','.join(INSTALLED)}]"]
    assert CONDA["name"] == "sopo", "`conda activate sopo` is printed in many places"


def test_make_asks_for_the_python_that_the_project_states() -> None:
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"({lowest.replace('.', ', ')}) <= sys.version_info" in MAKEFILE
    assert f"needs Python {lowest}" in MAKEFILE


def test_an_old_python_is_refused_in_one_line_before_anything_is_made(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text('#!/bin/sh\necho "$@" >>calls\nexit 1\n')
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    run = subprocess.run(
        ["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )
    message, *rest = run.stderr.splitlines()
    assert f"needs Python 3.11 to 3.14, which {old} is not" in message
    assert len(rest) == 1, "make's own line on the failed rule"
    assert (tmp_path / "calls").read_text().count("\n") == 1, "only its version was asked"
    assert not (tmp_path / ".venv").exists()


def test_every_file_that_programs_read_is_installed_with_them() -> None:
    tops = [pattern.rstrip("*") for pattern in SETUPTOOLS["packages"]["find"]["include"]]
    patterns = SETUPTOOLS["package-data"]["*"]
    files = [path for top in tops for path in (ROOT / top).rglob("*") if path.is_file()]
    others = [path for path in files if path.suffix not in (".py", ".pyc")]
    missed = [path for path in others if not any(fnmatch(path.name, p) for p in patterns)]
    assert others
    assert missed == []


def test_every_folder_of_code_is_installed() -> None:
    tops = [pattern.rstrip("*") for pattern in SETUPTOOLS["packages"]["find"]["include"]]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= set(tops)
    modules = {path.stem for path in ROOT.glob("*.py")}
    assert modules == set(SETUPTOOLS["py-modules"])
