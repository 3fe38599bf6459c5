"""Options as dataclasses: one declaration gives the command line, the YAML file and the types.

    @dataclass
    class Options(TrainingOptions):
        beta: float = option(1.0, "strength of the KL anchor", minimum=0)

    options = parse_options(Options, description=__doc__)

Precedence: command line, then ``--config FILE.yaml``, then the defaults. A declaration also says
whether the option may differ from that of an earlier run whose results are taken over (`Free`).
"""

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from utils.bounded import read_yaml
from utils.commands import typed
from utils.errors import UserError
from utils.places import here_or_project

T = TypeVar("T")
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}

# always: no result depends on it. resume: a resumed run may have another (a file that was moved,
# an interval). upwards: a resumed run may have more. never: it makes another run.
Free = Literal["always", "resume", "upwards", "never"]


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[Any] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    required: bool = False,
    free: Free = "never",
) -> Any:
    """A dataclass field with a help text; `minimum` and `maximum` are inclusive bounds."""
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "required": required,
        "free": free,
    }
    return _field(default, metadata)


def with_default(default: Any, help: str | None = None, **rules: Any) -> Any:
    """The option of this name that a base class declares, with another default, and another help
    text and `rules` where they are given; with a default it is required no longer."""
    changes = ({"help": help} if help else {}) | ({"required": False} if default else {})
    return _Inherited(default, changes | rules)


@dataclasses.dataclass(frozen=True)
class _Inherited:
    """Stands in a class body until Python tells the class and the name."""

    default: Any
    changes: Mapping[str, Any]

    def __set_name__(self, owner: type, name: str) -> None:
        fields = (vars(base).get("__dataclass_fields__", {}) for base in owner.__mro__)
        declared = next(found[name] for found in fields if name in found)
        setattr(owner, name, _field(self.default, {**declared.metadata, **self.changes}))


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class _Parser(argparse.ArgumentParser):
    """argparse prints its usage before an error; a `UserError` is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def parse_options(
    options_class: type[T], argv: Sequence[str] | None = None, description: str | None = None
) -> T:
    """Read `options_class` (a dataclass of `option` fields) from the command line.

    Calls ``validate()`` on the result where the class has one. Raises UserError for options that
    are unknown, and for values that are out of bounds or of another type.
    """
    parser = _Parser(
        description=description and typed(description),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="YAML file with the same options")
    kinds = typing.get_type_hints(options_class)
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    for field in fields.values():
        _add_argument(parser, field, kinds[field.name])
    known, unknown = parser.parse_known_args(argv)
    _refuse_unknown(unknown, fields)
    given = vars(known)
    config = given.pop("config")
    values = _read_config(config, fields, kinds) if config else {}
    values |= given
    for field in fields.values():
        if field.metadata["required"] and field.name not in values:
            raise UserError(f"--{field.name} is required: {field.metadata['help']}")
    options = options_class(**values)
    check_bounds(options)
    if hasattr(options, "validate"):
        options.validate()
    return options


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is most like an unknown one, as `` (did you mean it?)``, or nothing."""
    alike = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""


def _refuse_unknown(words: Sequence[str], fields: Iterable[str]) -> None:
    if not words:
        return
    known = [f"--{name}" for name in (*fields, "config")]
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not names:
        raise UserError(f"{' '.join(words)}: no option takes this; options start with --")
    raise UserError("; ".join(f"{n} is no option{did_you_mean(n, known)}" for n in names))


def fixed_options(options: Any, resumed: bool = False) -> dict[str, Any]:
    """The options on which results depend, to be stored beside them; resumed: less those which
    may differ where a run goes on."""
    free = ("always", "resume") if resumed else ("always",)
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.metadata.get("free") not in free
    }


def changed_options(stored: Mapping[str, Any], wanted: Any, resumed: bool = False) -> list[str]:
    """``--name stored -> wanted`` for every option that differs from an earlier run's and may not.

    What `stored` lacks, being newer, had its default. resumed: the run goes on, so that more may
    differ than where its results are taken over as they are.
    """
    defaults, changed = type(wanted)(), []
    for field in dataclasses.fields(wanted):
        old = stored.get(field.name, getattr(defaults, field.name))
        new, free = getattr(wanted, field.name), field.metadata.get("free")
        if free == "always" or (resumed and free == "resume"):
            continue
        grown = resumed and free == "upwards" and isinstance(old, (int, float)) and old <= new
        if old != new and not grown:
            changed.append(f"--{field.name} {old} -> {new}")
    return changed


def check_bounds(options: Any) -> None:
    """Raises UserError when a field is outside its declared bounds or choices."""
    for field in dataclasses.fields(options):
        value, rule = getattr(options, field.name), field.metadata
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if rule["choices"] and item not in rule["choices"]:
                allowed = ", ".join(map(str, rule["choices"]))
                raise UserError(f"--{field.name} {item} is unknown; choose one of {allowed}")
            if rule["minimum"] is not None and not item >= rule["minimum"]:
                raise UserError(f"--{field.name} {item} is too small; minimum {rule['minimum']}")
            if rule["maximum"] is not None and not item <= rule["maximum"]:
                raise UserError(f"--{field.name} {item} is too large; maximum {rule['maximum']}")


def _element_type(kind: Any) -> tuple[type, bool]:
    """The scalar type inside ``list[X]`` or ``X | None``, and whether it is a list."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return arguments[0], True
    if origin in (typing.Union, types.UnionType):
        return next(a for a in arguments if a is not type(None)), False
    return kind, False


def parse_bool(text: str | bool) -> bool:
    """``"False"`` is False (argparse's ``type=bool`` would make it True)."""
    word = str(text).lower()
    if word not in _TRUE | _FALSE:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return word in _TRUE


def _add_argument(
    parser: argparse.ArgumentParser, field: dataclasses.Field[Any], kind: Any
) -> None:
    scalar, is_list = _element_type(kind)
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    note = "required" if field.metadata["required"] else f"default: {default}"
    choices = field.metadata["choices"]
    if choices:
        note = f"one of {', '.join(map(str, choices))}; {note}"
    settings: dict[str, Any] = {
        "help": f"{field.metadata['help']} ({note})".replace("%", "%%"),
        "default": argparse.SUPPRESS,  # so that only what was typed overrides the YAML file
        "type": parse_bool if scalar is bool else scalar,
    }
    if is_list:
        settings |= {"nargs": "+", "metavar": scalar.__name__.upper()}
    elif scalar is bool:
        settings |= {"nargs": "?", "const": True, "metavar": "true|false"}
    else:
        settings["metavar"] = scalar.__name__.upper()
    parser.add_argument(f"--{field.name}", **settings)


def _read_config(
    path: str, fields: dict[str, dataclasses.Field[Any]], kinds: dict[str, Any]
) -> dict[str, Any]:
    file = here_or_project(path)
    if not file.is_file():
        raise UserError(f"--config {path} does not exist")
    content = read_yaml(file, f"--config {path}") or {}
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold `option: value` lines")
    unknown = [str(name) for name in content if name not in fields]
    if unknown:
        named = ", ".join(f"{name}{did_you_mean(name, fields)}" for name in unknown)
        raise UserError(f"--config {path} has unknown options: {named}")
    where = f"--config {path}"
    return {name: _convert(where, name, value, kinds[name]) for name, value in content.items()}


def from_record(options_class: type[T], record: Mapping[str, Any], where: str) -> T:
    """Options as an earlier run stored them; what the record lacks has its default.

    Raises UserError, which begins with `where`, for a value that is out of bounds or of another
    type.
    """
    kinds = typing.get_type_hints(options_class)
    names = [field.name for field in dataclasses.fields(options_class) if field.name in record]
    values = {name: _convert(where, name, record[name], kinds[name]) for name in names}
    options = options_class(**values)
    try:
        check_bounds(options)
        if hasattr(options, "validate"):
            options.validate()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return options


def _convert(where: str, name: str, value: Any, kind: Any) -> Any:
    scalar, is_list = _element_type(kind)
    if value is None and type(None) in typing.get_args(kind):
        return None
    try:
        if is_list:
            items = value if isinstance(value, list) else [value]
            return [_scalar(item, scalar) for item in items]
        return _scalar(value, scalar)
    except (TypeError, ValueError, OverflowError, argparse.ArgumentTypeError):
        shown = f"{value!r:.60}"
        raise UserError(f"{where}: {name}: {shown} is not a {scalar.__name__}") from None


def _scalar(value: Any, kind: Any) -> Any:
    """A YAML value as the command line would read it, so that 3.7 is no int and true no float."""
    if kind not in (bool, int, float, str):
        return kind(value)
    if value is None or isinstance(value, (list, dict)):
        raise TypeError
    return parse_bool(value) if kind is bool else kind(str(value))
