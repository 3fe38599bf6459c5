"""Files that nobody named: here before the project's folder."""

from pathlib import Path

import pytest

from utils import places
from utils.places import here_or_project


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project's folder; the current folder is ``here``, beside it."""
    for name in ("project", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(places, "PROJECT_ROOT", tmp_path / "project")
    return tmp_path / "project"


def test_here_comes_before_the_project_and_the_first_name_before_others(project: Path) -> None:
    (project / "b").touch()
    assert here_or_project("a", "b") == project / "b"
    Path("b").touch()
    assert here_or_project("a", "b") == Path("b")
    (project / "a").touch()
    assert here_or_project("a", "b") == project / "a"


def test_what_is_nowhere_is_named_as_it_was(project: Path) -> None:
    assert here_or_project("x/a", "x/b") == Path("x/a")


def test_an_absolute_path_stays(project: Path) -> None:
    (project / "a").touch()
    assert here_or_project(project / "a") == project / "a"
