"""Options as dataclasses: one declaration gives the command line, the YAML file and the types.

    @dataclass
    class Options(TrainingOptions):
        beta: float = option(1.0, "strength of the KL anchor", minimum=0)

    options = parse_options(Options, description=__doc__)

Precedence: command line, then ``--config FILE.yaml``, then the defaults.
"""

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml

from utils.commands import typed
from utils.errors import UserError
from utils.places import here_or_project

T = TypeVar("T")
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[Any] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    required: bool = False,
) -> Any:
    """A dataclass field with a help text; `minimum` and `maximum` are inclusive bounds."""
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "required": required,
    }
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_options(
    options_class: type[T], argv: Sequence[str] | None = None, description: str | None = None
) -> T:
    """Read `options_class` (a dataclass of `option` fields) from the command line.

    Calls ``validate()`` on the result where the class has one. Raises UserError for values that
    are out of bounds or unknown; argparse itself exits with code 2 for unknown options.
    """
    parser = argparse.ArgumentParser(
        description=description and typed(description),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="YAML file with the same options")
    kinds = typing.get_type_hints(options_class)
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    for field in fields.values():
        _add_argument(parser, field, kinds[field.name])
    given = vars(parser.parse_args(argv))
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
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {path} is not valid YAML ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold `option: value` lines")
    unknown = sorted(set(content) - set(fields))
    if unknown:
        raise UserError(f"--config {path} has unknown options: {', '.join(unknown)}")
    return {name: _convert(path, name, value, kinds[name]) for name, value in content.items()}


def _convert(path: str, name: str, value: Any, kind: Any) -> Any:
    scalar, is_list = _element_type(kind)
    if value is None:
        return None
    try:
        convert = parse_bool if scalar is bool else scalar
        if is_list:
            return [convert(item) for item in (value if isinstance(value, list) else [value])]
        return convert(value)
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        raise UserError(f"--config {path}: {name}: {value!r} is not a {scalar.__name__}") from None
