"""The packages of the extras, imported where they are needed and not before."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from utils.errors import UserError


def extra(name: str, of: str = "images", needed_by: str = "pictures") -> ModuleType:
    """The module `name` out of the extra `of`. Raises UserError, which says both, without it."""
    try:
        with quiet():
            return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"{needed_by} need {package} ({error}); install the extra: pip install '.[{of}]'"
        ) from None


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
