"""The packages of the extra ``images``, imported where they are needed and not before."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from utils.errors import UserError

INSTALL = "install the extra: pip install '.[images]'"


def extra(name: str) -> ModuleType:
    """The module `name` of diffusers, peft, PIL or pyarrow. Raises UserError without it."""
    try:
        with quiet():
            return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"pictures need {package} ({error}); {INSTALL}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that diffusers draws by importing what nobody here uses."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
