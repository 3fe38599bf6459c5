"""Mutation testing: change a module in one place at a time, and see whether its tests notice.

    python -m tests.mutants                                      all modules of `TESTS`
    python -m tests.mutants --modules train/preference/gate.py   one of them, or several
    python -m tests.mutants --share 0.2                          a fifth of each one's mutants
    python -m tests.mutants --record                             counts go to docs/reliability.md

Changed are comparisons, arithmetic, boolean operators, signs, numbers, truth values, conditions,
names with an opposite (min and max), and calls for their effect, which are left out. Annotations,
decorators, declarations of options and whatever a ``raise`` says are left as they are. Every mutant
is a forked process that runs the module's test files until one fails; nothing is written to disk.
(mutmut leaves decorated functions out, which here are half of the code, and cosmic-ray starts a
process, and with it torch, for each of a thousand mutants.)

A mutant that no test notices is printed and makes the exit code 1, unless
``tests/equivalent_mutants.yaml`` gives the reason for it: it computes the same.
"""

from utils.start import entry_point

import ast
import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from itertools import takewhile
from pathlib import Path

import pytest
import torch
import yaml

from tests.paths import ROOT
from tests.test_imports import arrows
from utils.errors import UserError
from utils.files import atomic_write
from utils.options import did_you_mean, option, parse_options

EQUIVALENT = ROOT / "tests" / "equivalent_mutants.yaml"
PAGE = ROOT / "docs" / "reliability.md"
TABLE = "| module | tried | mutants | killed | equal | found |\n|---|---|---|---|---|---|\n"
SOPO = "tests/train/test_train_sopo.py"

DIFFUSION = tuple(
    f"tests/diffusion/test_{name}.py" for name in ("gaussian", "schedule", "sampling", "samplers")
)
REALIGN = ("tests/rewards/test_realign.py",)

# The files that test a module, the quickest and nearest first
TESTS: dict[str, tuple[str, ...]] = {
    "train/preference/algorithm.py": (
        "tests/train/test_methods.py",
        "tests/train/test_safeguards.py",
        SOPO,
    ),
    "train/preference/gate.py": (
        "tests/train/test_pairs.py",
        "tests/train/test_safeguards.py",
        "tests/train/test_methods.py",
    ),
    "train/preference/losses.py": ("tests/train/test_losses.py",),
    "train/preference/methods.py": (
        "tests/train/test_preference_options.py",
        "tests/train/test_methods.py",
    ),
    "train/preference/options.py": ("tests/train/test_preference_options.py", SOPO),
    "train/preference/pairs.py": ("tests/train/test_pairs.py", SOPO),
    "train/preference/fixed_pairs.py": (
        "tests/train/test_fixed_pairs.py",
        "tests/model/momask/test_preference.py",
    ),
    "train/preference/safeguards.py": ("tests/train/test_safeguards.py",),
    "train/reward_backprop/options.py": ("tests/train/test_preference_options.py",),
    "train/reward_backprop/rollout.py": ("tests/train/test_reward_backprop.py",),
    "train/reward_backprop/task.py": ("tests/train/test_reward_backprop.py",),
    "diffusion/gaussian.py": DIFFUSION,
    "diffusion/samplers.py": (
        "tests/diffusion/test_samplers.py",
        "tests/diffusion/test_sampling.py",
    ),
    "diffusion/sampling.py": ("tests/diffusion/test_sampling.py",),
    "diffusion/schedule.py": DIFFUSION[1:],
    "rewards/best_of.py": ("tests/rewards/test_best_of.py",),
    "rewards/co_embedding.py": ("tests/rewards/test_co_embedding.py", "tests/rewards/test_load.py"),
    "rewards/co_embedding_reward.py": ("tests/rewards/test_load.py",),
    "rewards/functions.py": ("tests/rewards/test_functions.py",),
    "rewards/load.py": ("tests/rewards/test_load.py", "tests/rewards/test_functions.py", *REALIGN),
    "rewards/realign.py": REALIGN,
    "rewards/realign_losses.py": REALIGN,
    "rewards/realign_network.py": REALIGN,
    "rewards/retrieval.py": ("tests/rewards/test_tmr.py", "tests/rewards/test_load.py"),
    "rewards/seam.py": ("tests/rewards/test_tmr.py", "tests/rewards/test_load.py"),
    "rewards/tmr.py": ("tests/rewards/test_tmr.py",),
    "rewards/weighted.py": ("tests/rewards/test_load.py",),
    "rewards/word_vectors.py": ("tests/rewards/test_word_vectors.py",),
    "tmr/encoders.py": ("tests/tmr/test_encoders.py",),
    "tmr/losses.py": ("tests/tmr/test_losses.py",),
    "tmr/model.py": ("tests/tmr/test_model.py", "tests/rewards/test_tmr.py"),
    "tmr/retrieval.py": ("tests/tmr/test_retrieval.py",),
    "eval/metrics.py": ("tests/eval/test_metrics.py",),
    "eval/protocol.py": ("tests/eval/test_protocol.py",),
}
# Modules of the same folders that are not counted, and why
LEFT_OUT = {
    "rewards/image.py": "networks of the hub, whose numbers the golden files fix",
    "rewards/open_clip.py": "a network, whose numbers the golden files fix",
    "rewards/pixels.py": "a network, whose numbers the golden files fix",
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


def sample(count: int, share: float, seed: int) -> set[int]:
    """Which of `count` mutants are tried: the same for the same seed, at least one."""
    return set(random.Random(seed).sample(range(count), min(count, max(1, round(share * count)))))


def survivors(
    path: Path, tests: Sequence[str], share: float = 1.0, seed: int = 0
) -> tuple[list[Mutant], int]:
    """The mutants that no test notices, and how many were tried: a `share` of all.

    Raises UserError where the tests fail without any change.
    """
    source, started = path.read_text(encoding="utf-8"), time.monotonic()
    if not forked(path, ast.parse(source), tests, timeout=600):
        raise UserError(f"the tests of {path} fail before anything was changed: {' '.join(tests)}")
    timeout = 10 + 5 * (time.monotonic() - started)
    chosen = sample(sum(1 for _ in mutants(source)), share, seed)
    found = [
        mutant
        for number, (mutant, tree) in enumerate(mutants(source))
        if number in chosen and forked(path, tree, tests, timeout)
    ]
    return found, len(chosen)


@dataclass
class Options:
    modules: list[str] = option([], "which of the listed files are changed; none = all")
    share: float = option(1.0, "share of each file's mutants that is tried", minimum=0, maximum=1)
    seed: int = option(0, "of the choice of that share", minimum=0)
    record: bool = option(False, "write the counts into the table of docs/reliability.md")

    def validate(self) -> None:
        for module in self.modules:
            if module not in TESTS:
                raise UserError(f"--modules {module} is not listed{did_you_mean(module, TESTS)}")


@dataclass(frozen=True)
class Count:
    """Of one module: mutants tried, those that a test noticed, and those that compute the same."""

    tried: int
    killed: int
    equivalent: int
    share: float

    def row(self, module: str) -> str:
        """As the table of docs/reliability.md has it; the share is of those that differ at all."""
        found = self.killed / max(1, self.tried - self.equivalent)
        part = "all" if self.share == 1 else f"{self.share:.0%}"
        numbers = f"{self.tried} | {self.killed} | {self.equivalent}"
        return f"| `{module}` | {part} | {numbers} | {found:.0%} |"


def record(counts: Mapping[str, Count]) -> None:
    """Put the rows of these modules in place of their old ones."""
    head, table, rest = PAGE.read_text(encoding="utf-8").partition(TABLE)
    old = list(takewhile(lambda line: line.startswith("|"), rest.splitlines(keepends=True)))
    rows = {line.split("`")[1]: line for line in old}
    rows |= {module: count.row(module) + "\n" for module, count in counts.items()}
    lines = "".join(rows[module] for module in TESTS if module in rows)
    with atomic_write(PAGE) as temporary:
        temporary.write_text(f"{head}{table}{lines}{rest[len(''.join(old)) :]}", encoding="utf-8")


def count_module(module: str, options: Options, reasons: Mapping[str, str]) -> tuple[Count, bool]:
    """The count, and whether every survivor has a reason; those that have none are printed."""
    preload(module.removesuffix(".py").replace("/", "."), TESTS[module])
    alive, tried = survivors(ROOT / module, TESTS[module], options.share, options.seed)
    new = [mutant for mutant in alive if mutant.name not in reasons]
    for mutant in new:
        print(f"survived: {module}:{mutant.line}: {mutant.name}")
    return Count(tried, tried - len(alive), len(alive) - len(new), options.share), not new


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    reasons = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8"))
    explained = True
    torch.testing.assert_close(torch.ones(1), torch.ones(1))  # imports much at its first call
    for module in options.modules or TESTS:
        count, known = count_module(module, options, reasons.get(module, {}))
        print(
            f"{module}: {count.killed} of {count.tried} killed, {count.equivalent} equivalent",
            flush=True,
        )
        explained &= known
        if options.record:
            record({module: count})
    sys.exit(0 if explained else 1)


if __name__ == "__main__":
    main()
