"""Errors that are sentences for a person: they are printed as they are, without a traceback."""

import functools
import os
import sys


class InputError(Exception):
    """Bad input, bad flags, contradicting settings: what was found, what was expected, what to do."""


class TrainingStopped(Exception):
    """The run cannot go on: what happened, and what to change."""


def first_line(error):
    """What an exception of a library says, cut to a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def speak_plainly(main):
    """Wrap a command's main: one sentence on stderr and exit status 2 (bad input) or 3 (training stopped).

    All ranks read the same files and meet the same error; each machine says it once.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except (InputError, TrainingStopped) as error:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(2 if isinstance(error, InputError) else 3)
        except KeyboardInterrupt:
            sys.exit(130)

    return wrapped
