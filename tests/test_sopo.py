"""The console command: every program by a name, in one line each."""

from importlib import import_module

import pytest

import sopo
from utils.errors import UserError


@pytest.mark.parametrize("module", sopo.COMMANDS.values())
def test_every_command_is_a_program(module: str) -> None:
    assert callable(import_module(module).main)


def test_the_help_has_a_line_for_every_command() -> None:
    lines = sopo.usage().splitlines()[2:]
    names = [line[2:20].strip() for line in lines]
    assert names == list(sopo.COMMANDS)
    assert all(line[20:].strip() for line in lines), "a module without a description"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tune", ("tune", [])),
        ("tune --lr 1e-5 train", ("tune", ["--lr", "1e-5", "train"])),
        ("train mdm --lr 1e-5", ("train mdm", ["--lr", "1e-5"])),
    ],
)
def test_the_options_follow_the_command(words: str, expected: tuple[str, list[str]]) -> None:
    assert sopo.split(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("generat --seed 1", "sopo generat is no command; did you mean sopo generate?"),
        ("trian mdm", "did you mean sopo train mdm?"),
        ("evalute", "did you mean sopo evaluate?"),
        ("train mdn", "sopo train takes one of tmr, mdm"),
        ("train --help", "sopo train takes one of tmr, mdm"),
        ("xyz", "sopo --help lists them"),
    ],
)
def test_what_is_no_command_names_the_nearest(words: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        sopo.split(words.split())
    assert hint in str(error.value)


def test_a_program_runs_under_its_short_name(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["sopo", "evaluate", "tmr", "--help"])
    with pytest.raises(SystemExit) as code:
        sopo.main()
    assert code.value.code == 0
    assert capsys.readouterr().out.startswith("usage: sopo evaluate tmr ")


def test_its_own_help_exits_well_and_a_mistake_with_2(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["sopo"])
    sopo.main()
    assert "generate" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["sopo", "nonsense"])
    with pytest.raises(SystemExit) as code:
        sopo.main()
    assert code.value.code == 2
    assert capsys.readouterr().err.startswith("error: sopo nonsense is no command")
