"""What every script begins with: its threads are settled before torch is loaded.

The decorator below comes with that, so that no script forgets it; ruff keeps this import first.
"""

import functools
import sys
from collections.abc import Callable

from utils.commands import typed
from utils.errors import UserError
from utils.parents import watch_parent
from utils.threads import settle_threads

settle_threads()


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's ``main``: a `UserError` becomes one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapped() -> None:
        watch_parent()
        try:
            main()
        except UserError as error:
            print(f"error: {typed(str(error))}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapped
