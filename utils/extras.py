"""The packages of the extras, imported where they are needed and not before."""

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
    """Without the warnings that diffusers draws by importing what nobody here uses, and without a
    progress bar for every file that is loaded."""
    from transformers.utils import logging as said

    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()
