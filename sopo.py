"""One command for all programs: ``sopo generate ...`` is ``python -m sample.generate ...``."""

from utils.start import entry_point

import ast
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from utils.errors import UserError

COMMANDS = {
    "demo": "train.demo",
    "check": "prepare.check",
    "generate": "sample.generate",
    "compare": "sample.compare",
    "export motions": "sample.export",
    "live": "sample.demo",
    "data synthetic": "prepare.synthetic",
    "data shapes": "prepare.shapes",
    "data bvh": "prepare.from_bvh",
    "data cmu": "prepare.humanml_cmu",
    "data inspect": "prepare.inspect",
    "train tmr": "train.train_tmr",
    "train mdm": "train.train_mdm",
    "train mld": "train.train_mld",
    "train evaluators": "train.train_evaluators",
    "pairs": "prepare.preference_pairs",
    "tune": "train.train_sopo",
    "tune backprop": "train.train_reward_backprop",
    "tune images": "train.train_sopo_image",
    "sweep": "train.sweep",
    "evaluate tmr": "eval.eval_tmr",
    "evaluate humanml": "eval.eval_humanml",
    "evaluate spatial": "eval.eval_spatial",
    "tables": "eval.tables",
    "export": "model.export",
    "merge lora": "model.merge_lora",
    "reproduce": "train.reproduce",
    "toy": "train.toy_example",
}


def usage() -> str:
    """What each command does, in the first line of its module's description."""
    lines = [f"  {name:17} {_first_line(module)}" for name, module in COMMANDS.items()]
    return "\n".join(["usage: sopo COMMAND [--help] [OPTION ...]", "", *lines])


def _first_line(module: str) -> str:
    path = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    description = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return description.partition("\n")[0]


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command at the start of a command line, and its options.

    Raises UserError with the nearest command, or with those of a group, where it is none.
    """
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, list(words[count:])
    first = words[0]
    kinds = [name.removeprefix(f"{first} ") for name in COMMANDS if name.startswith(f"{first} ")]
    if kinds:
        raise UserError(f"sopo {first} takes one of {', '.join(kinds)}")
    known = [*COMMANDS, *(name.split()[0] for name in COMMANDS)]
    tries = (" ".join(words[:2]), first)
    near = [name for typed in tries for name in difflib.get_close_matches(typed, known, n=1)]
    hint = f"did you mean sopo {near[0]}?" if near else "sopo --help lists them"
    raise UserError(f"sopo {first} is no command; {hint}")


@entry_point
def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    name, options = split(words)
    sys.argv = [f"sopo {name}", *options]  # the name that the program shows in its usage
    import_module(COMMANDS[name]).main()


if __name__ == "__main__":
    main()
