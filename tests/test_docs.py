"""The commands of README.md and docs/: every program is there and takes the options named."""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from sopo import COMMANDS, split
from tests.paths import ROOT
from utils import options as option_parsing
from utils.errors import UserError

TEXT = ROOT / "docs/results/page.md"  # whose links are those of the page that is made of it
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - {TEXT})]
INLINE = re.compile(r"`((?:python|accelerate launch|sopo|bash|make) [^`]+)`")
STARTS = ("python ", "accelerate launch ", "torchrun ", "sopo ", "bash ", "make ")
ALLOWED = re.compile(r"does not exist|is not there|is required|needs")


def commands(text: str) -> Iterator[str]:
    """Of indented and fenced blocks, with continued lines joined, and of inline code."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    for line in joined.splitlines():
        word = line.strip()
        if (line.startswith("    ") or "`" not in line) and word.startswith(STARTS):
            yield re.sub(r"\s+#.*", "", word)
    yield from (" ".join(found.split()) for found in INLINE.findall(text))


def program(command: str) -> tuple[str, list[str]] | None:
    """Module and options of a command of this project; None for make, bash and pip.

    Variables of the shell, dots for more options, and what follows a pipe or ``&&`` are left out.
    """
    words = shlex.split(re.split(r" [|&;>]+ ?", command)[0].replace("{1,2}", "1"))
    words = [
        word
        for word, before in zip(words, ["", *words], strict=False)
        if word != "..." or "--" in before
    ]
    words = [word for word in words if not re.fullmatch(r"\$\w+", word)]
    if words[:2] == ["sopo", "--help"]:
        return None
    if words[0] == "sopo":
        name, rest = split(words[1:])
        return COMMANDS[name], rest
    if words[0] in ("python", "accelerate", "torchrun"):
        if "-m" in words:
            place = words.index("-m") + 1
            return words[place].rstrip(",.;"), words[place + 1 :]
        if words[1].endswith(".py"):
            return words[1].removesuffix(".py"), words[2:]
    return None


def documented() -> list[tuple[str, str]]:
    """Page and command, each command once."""
    found = {}
    for page in PAGES:
        for command in commands(page.read_text(encoding="utf-8")):
            if command.split()[0] != "sopo" or len(command.split()) > 1:
                found.setdefault(command, page.relative_to(ROOT).as_posix())
    return [(page, command) for command, page in found.items()]


DOCUMENTED = documented()


class Parsed(Exception):
    """The options of a program were read; nothing of it has run."""


def test_there_are_commands_to_check() -> None:
    assert len(DOCUMENTED) > 60
    assert sum(command.startswith("python -m train.train_sopo") for _, command in DOCUMENTED) > 1


@pytest.mark.parametrize(("page", "command"), DOCUMENTED)
def test_a_documented_command_is_one(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command)
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file(), page
        return
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(words[1:2]) <= targets, page
        return
    found = program(command)
    if found is None:
        return
    module, arguments = found
    if module.startswith("tests"):
        assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()
        return
    script = import_module(module)
    real = option_parsing.parse_options

    def parse(options_class: type, argv: list[str] | None = None, **more: object) -> None:
        real(options_class, argv, **more)
        raise Parsed

    monkeypatch.setattr(script, "parse_options", parse)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.chdir(ROOT)
    try:
        script.main.__wrapped__()
    except Parsed:
        return
    except UserError as error:  # a file of the reader's, or an option that the sentence leaves out
        if not ALLOWED.search(str(error)):
            raise


def test_a_wrong_option_and_a_wrong_program_are_found() -> None:
    assert program("python -m train.train_mdm --save_dir x") == (
        "train.train_mdm",
        ["--save_dir", "x"],
    )
    assert program("sopo tune --lr 1") == ("train.train_sopo", ["--lr", "1"])
    assert program("accelerate launch --num_processes 2 -m train.train_sopo --lr 1") == (
        "train.train_sopo",
        ["--lr", "1"],
    )
    with pytest.raises(UserError, match="no command"):
        program("sopo tunes")
    assert list(
        commands("text `python -m a.b --c` end\n\n    python -m d.e \\\n        --f 1  # why\n")
    ) == [
        "python -m d.e --f 1",
        "python -m a.b --c",
    ]


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert Path(page.parent / link).exists(), f"{page}: {link}"
