"""The house has floors: an import goes down, in no circle, and never to an entry point."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.paths import ROOT

# From the top. train.preference is a room of its own inside a folder of another floor.
FLOORS = (
    ("sopo",),
    ("train",),
    ("eval", "text_motion_sim"),
    ("prepare",),
    ("train.preference",),
    ("sample",),
    ("rewards",),
    ("tmr",),
    ("model", "export"),
    ("data_loaders", "diffusion"),
    ("utils",),
)
LEVELS = {room: level for level, rooms in enumerate(reversed(FLOORS)) for room in rooms}
FOLDERS = {room.partition(".")[0] for room in LEVELS}

# Imports of entry points and arrows up that are still to be put right; none may be added.
EXCEPTIONS = {
    ("eval.speed.plain_path", "train.train_sopo"),
    ("eval.speed.workload", "train.train_sopo"),
    ("sample.compare", "sample.generate"),
    ("train.inspection", "sample.generate"),
    ("train.toy_example", "train.train_sopo"),
}


class Arrow(NamedTuple):
    """Module `source` imports module `target`."""

    source: str
    target: str


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax trees of all modules that belong to a room, by dotted name."""
    paths = [p for folder in sorted(FOLDERS) for p in sorted((ROOT / folder).rglob("*.py"))]
    paths += [path for folder in sorted(FOLDERS) if (path := ROOT / f"{folder}.py").is_file()]
    return {dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(node: ast.AST) -> Iterator[str]:
    """The modules of ours that a statement imports: of ``from a import b``, a.b if that is one."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"a relative import in line {node.lineno}"
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if name in modules() else str(node.module) for name in whole]
    yield from (name for name in names if name in modules())


@cache
def arrows() -> frozenset[Arrow]:
    """Of every module, those inside functions and type-checking blocks included."""
    return frozenset(
        Arrow(source, target)
        for source, tree in modules().items()
        for node in ast.walk(tree)
        for target in imported(node)
    )


def room(module: str) -> str:
    """The longest name in `FLOORS` that holds the module."""
    return max((r for r in LEVELS if f"{module}.".startswith(f"{r}.")), key=len)


def is_entry_point(tree: ast.Module) -> bool:
    """Does the module end in ``if __name__ == "__main__"``?"""
    return any(isinstance(n, ast.If) and "__name__" in ast.unparse(n.test) for n in tree.body)


def circles(edges: set[tuple[str, str]]) -> set[str]:
    """The nodes from which a path leads back to them."""
    reached = {start: {end for s, end in edges if s == start} for start, _ in edges}
    for _ in reached:
        for ends in reached.values():
            ends |= {far for end in ends for far in reached.get(end, ())}
    return {node for node, ends in reached.items() if node in ends}


def wrong() -> set[Arrow]:
    """Arrows that run up, and imports of entry points."""
    entries = {name for name, tree in modules().items() if is_entry_point(tree)}
    return {
        arrow
        for arrow in arrows()
        if arrow.target in entries or LEVELS[room(arrow.source)] < LEVELS[room(arrow.target)]
    }


def test_imports_go_down_and_nothing_imports_an_entry_point() -> None:
    found = sorted(wrong())
    assert not found, "\n".join(f"{source} imports {target}" for source, target in found)


def test_rooms_import_each_other_in_no_circle() -> None:
    edges = {(room(a.source), room(a.target)) for a in arrows()}
    assert not circles({(source, target) for source, target in edges if source != target})


def test_circles_are_found() -> None:
    line = {("a", "b"), ("b", "c")}
    assert not circles(line)
    assert circles(line | {("c", "a"), ("d", "a")}) == {"a", "b", "c"}


def test_the_walk_sees_inner_imports_and_knows_the_rooms() -> None:
    tree = ast.parse("def f():\n    from utils import errors\n    import data_loaders.facts as g\n")
    found = {target for node in ast.walk(tree) for target in imported(node)}
    assert found == {"utils.errors", "data_loaders.facts"}
    assert room("train.preference.losses") == "train.preference"
    assert room("train.preferences") == "train"
    assert room("text_motion_sim") == "text_motion_sim"
    assert is_entry_point(modules()["train.train_sopo"])
    assert not is_entry_point(modules()["utils.errors"])
