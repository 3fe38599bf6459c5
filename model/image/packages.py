"""The packages of the extra ``images``, imported where they are needed and not before."""

from importlib import import_module
from types import ModuleType

from utils.errors import UserError

INSTALL = "install the extra: pip install '.[images]'"


def extra(name: str) -> ModuleType:
    """The module `name` of diffusers, peft, PIL or pyarrow. Raises UserError without it."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"pictures need {package} ({error}); {INSTALL}") from None
