"""Mutation testing: change a module in one place at a time, and see whether its tests notice.

    python -m tests.mutants                                    all modules of `TESTS`
    python -m tests.mutants train/preference/gate.py           one of them, or several

Changed are comparisons, arithmetic, boolean operators, signs, numbers, truth values, conditions,
names with an opposite (min and max), and calls for their effect, which are left out. Annotations,
decorators, declarations of options and whatever a ``raise`` says are left as they are. Every mutant
is a forked process that runs the module's test files until one fails; nothing is written to disk.
(mutmut leaves decorated functions out, which here are half of the code, and cosmic-ray starts a
process, and with it torch, for each of a thousand mutants.)

A mutant that no test notices is printed and makes the exit code 1, unless
``tests/equivalent_mutants.yaml`` gives the reason for it: it computes the same.
"""

import ast
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
import torch
import yaml

from tests.paths import ROOT
from tests.test_imports import arrows

EQUIVALENT = ROOT / "tests" / "equivalent_mutants.yaml"
SOPO = "tests/train/test_train_sopo.py"

# The files that test a module, the quickest first
TESTS: dict[str, tuple[str, ...]] = {
    "train/preference/algorithm.py": (
        "tests/train/test_methods.py",
        SOPO,
        "tests/train/test_safeguards.py",
    ),
    "train/preference/gate.py": (
        "tests/train/test_pairs.py",
        "tests/train/test_safeguards.py",
        "tests/train/test_methods.py",
    ),
    "train/preference/losses.py": ("tests/train/test_losses.py",),
    "train/preference/methods.py": ("tests/train/test_methods.py",),
    "train/preference/pairs.py": ("tests/train/test_pairs.py", SOPO),
    "train/preference/fixed_pairs.py": ("tests/train/test_fixed_pairs.py",),
    "train/preference/safeguards.py": ("tests/train/test_safeguards.py",),
    "train/reward_backprop/rollout.py": ("tests/train/test_reward_backprop.py",),
    "train/reward_backprop/task.py": ("tests/train/test_reward_backprop.py",),
    "diffusion/gaussian.py": ("tests/diffusion",),
    "diffusion/samplers.py": ("tests/diffusion",),
    "diffusion/sampling.py": ("tests/diffusion",),
    "diffusion/schedule.py": ("tests/diffusion",),
    "rewards/retrieval.py": ("tests/rewards/test_tmr.py", "tests/rewards/test_load.py"),
    "rewards/seam.py": ("tests/rewards/test_tmr.py", "tests/rewards/test_load.py"),
    "rewards/tmr.py": ("tests/rewards/test_tmr.py",),
    "rewards/weighted.py": ("tests/rewards/test_load.py",),
    "rewards/co_embedding.py": ("tests/rewards/test_co_embedding.py", "tests/rewards/test_load.py"),
    "rewards/co_embedding_reward.py": ("tests/rewards/test_load.py",),
    "eval/metrics.py": ("tests/eval/test_metrics.py",),
    "eval/protocol.py": ("tests/eval/test_protocol.py",),
}

OPPOSITES: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
PAIRS = (("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("any", "all"))
NAMES = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}


@dataclass(frozen=True)
class Mutant:
    """Where a module was changed, and how."""

    line: int
    source: str  # the whole line, without indentation
    change: str

    @property
    def name(self) -> str:
        return f"{self.source}  [{self.change}]"


def mutants(source: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """Every mutant, and the tree of its module, which holds the change until the next one."""
    tree, lines = ast.parse(source), source.splitlines()
    for node in _changeable(tree):
        for change, apply, undo in _changes(node):
            apply()
            line = getattr(node, "lineno", 0)
            yield Mutant(line, lines[line - 1].strip(), change), ast.fix_missing_locations(tree)
            undo()


def _changeable(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes in which a change may matter, from the top."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_prose(child):
                yield from _changeable(child)


def _is_prose(node: ast.AST) -> bool:
    """A message, the declaration of an option, whose bounds and default are data, or an assertion
    that two sequences are of one length."""
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("option", "with_default", "TypeVar")
    return isinstance(node, (ast.Raise, ast.JoinedStr))


Change = tuple[str, Callable[[], None], Callable[[], None]]


def _changes(node: ast.AST) -> Iterator[Change]:
    """What may be changed in one node: in words, how, and how to take it back."""

    def put(field: str, value: object, change: str, position: int | None = None) -> Change:
        old = getattr(node, field)
        new = value if position is None else [*old[:position], value, *old[position + 1 :]]
        return change, lambda: setattr(node, field, new), lambda: setattr(node, field, old)

    def opposite(operator: ast.AST, field: str, position: int | None = None) -> Iterator[Change]:
        kind = OPPOSITES.get(type(operator))
        if kind is not None:
            yield put(field, kind(), f"{type(operator).__name__} {kind.__name__}", position)

    match node:
        case ast.Compare(ops=operators):
            for position, operator in enumerate(operators):
                yield from opposite(operator, "ops", position)
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) | ast.AugAssign(op=operator):
            yield from opposite(operator, "op")
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not() as operator):
            doubled = ast.UnaryOp(operator, node.operand)
            yield put("operand", doubled, f"no {type(operator).__name__}")
        case ast.Constant(value=bool() as value):
            yield put("value", not value, f"{value} {not value}")
        case ast.Constant(value=int() | float() as value):
            yield put("value", value + 1, f"{value} {value + 1}")
        case ast.Attribute(attr=name) if name in NAMES:
            yield put("attr", NAMES[name], f"{name} {NAMES[name]}")
        case ast.Name(id=name) if name in NAMES:
            yield put("id", NAMES[name], f"{name} {NAMES[name]}")
        case ast.If(test=test) | ast.IfExp(test=test):
            yield put("test", ast.UnaryOp(ast.Not(), test), "negated")
        case ast.Expr(value=ast.Call()):
            yield put("value", ast.Constant(None), "left out")


def run_tests(path: Path, tree: ast.Module, tests: Sequence[str]) -> int:
    """Exit code of the tests with `tree` in place of the module at `path`; never returns twice."""
    load = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> object:
        mutated = Path(loader.path) == path
        return compile(tree, str(path), "exec") if mutated else load(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    return int(
        pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:unraisableexception", *tests])
    )


def forked(path: Path, tree: ast.Module, tests: Sequence[str], timeout: float) -> bool:
    """Do the tests pass? A mutant that hangs does not."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.setsid()
            code = run_tests(path, tree, tests)
        finally:
            os._exit(code)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        finished, status = os.waitpid(process, os.WNOHANG)
        if finished:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def preload(module: str, tests: Sequence[str]) -> None:
    """Import what the tests need, but what depends on the module: once, not in each fork.

    `module` is a dotted name.
    """
    with open(os.devnull, "w") as silent, redirect_stdout(silent), redirect_stderr(silent):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *tests])
    stale = {module}
    while grown := {a.source for a in arrows() if a.target in stale} - stale:
        stale |= grown
    for name in [n for n in sys.modules if n in stale or n.startswith("tests.")]:
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            vars(sys.modules[parent]).pop(child, None)
        del sys.modules[name]
    gc.freeze()  # no collection in a fork goes through all this again


def survivors(path: Path, tests: Sequence[str]) -> tuple[list[Mutant], int]:
    """The mutants that no test notices, and how many there are in all.

    Raises ValueError where the tests fail without any change.
    """
    source, started = path.read_text(encoding="utf-8"), time.monotonic()
    if not forked(path, ast.parse(source), tests, timeout=600):
        raise ValueError(f"the tests of {path} fail before anything was changed: {' '.join(tests)}")
    timeout = 10 + 5 * (time.monotonic() - started)
    total, found = 0, []
    for mutant, tree in mutants(source):
        total += 1
        if forked(path, tree, tests, timeout):
            found.append(mutant)
    return found, total


def main(modules: Sequence[str]) -> int:
    reasons = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8"))
    unexplained = 0
    torch.testing.assert_close(torch.ones(1), torch.ones(1))  # imports much at its first call
    for module in modules or TESTS:
        preload(module.removesuffix(".py").replace("/", "."), TESTS[module])
        alive, total = survivors(ROOT / module, TESTS[module])
        known = reasons.get(module, {})
        new = [mutant for mutant in alive if mutant.name not in known]
        for mutant in new:
            print(f"survived: {module}:{mutant.line}: {mutant.name}")
        killed, equal = total - len(alive), len(alive) - len(new)
        print(f"{module}: {killed} of {total} killed, {equal} equivalent", flush=True)
        unexplained += len(new)
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
