"""The one kind of error a user can mend: bad input, bad flags, contradicting settings."""

import functools
import os
import sys


class InputError(Exception):
    """What was found, what was expected, what to do. Printed as it is, without a traceback."""


def speak_plainly(main):
    """Wrap a command's main: an InputError becomes one sentence on stderr and exit status 2.

    All ranks read the same files and meet the same error; each machine says it once.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except InputError as error:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(2)

    return wrapped
