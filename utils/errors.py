"""Mistakes of the user are told in one line; mistakes of the program keep their traceback."""

import functools
import sys
from collections.abc import Callable

from utils.commands import typed


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, where, and what to do."""


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's ``main``: a `UserError` becomes one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except UserError as error:
            print(f"error: {typed(str(error))}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapped
