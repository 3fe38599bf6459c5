"""What every script begins with: its threads are settled before torch is loaded.

The decorator below comes with that, so that no script forgets it; ruff keeps this import first.
"""

import functools
import os
import sys
from collections.abc import Callable

from utils.commands import typed
from utils.errors import UserError
from utils.parents import watch_parent
from utils.threads import settle_threads
from utils.troubles import trouble

settle_threads()


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's ``main``: a `UserError`, a full disk and the like become one line
    on stderr and exit code 2.

    So does an interruption, with code 130, and a reader that has gone, as in ``... | head``, ends
    the script without a word.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        watch_parent()
        try:
            try:
                main()
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            sys.exit(1)
        except UserError as error:
            print(f"error: {typed(str(error))}", file=sys.stderr)
            sys.exit(2)
        except Exception as error:
            if not (told := trouble(error)):
                raise
            print(f"error: {told}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapped
