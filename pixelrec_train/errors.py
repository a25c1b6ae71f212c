"""Errors that are sentences for a person: they are printed as they are, without a traceback."""

import errno
import functools
import os
import sys


class InputError(Exception):
    """Bad input, bad flags, contradicting settings: what was found, what was expected, what to do."""


class TrainingStopped(Exception):
    """The run cannot go on: what happened, and what to change."""


def first_line(error):
    """What an exception of a library says, as one sentence."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":")
    text = f"no {text} is known" if isinstance(error, KeyError) else text
    return text if text.endswith((".", "!", "?")) else f"{text}."


# What the system says of a place that cannot be written or read; a file that is gone may be our mistake.
PLACES = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR,
    errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


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
        except OSError as error:
            if error.errno not in PLACES or not error.filename:
                raise
            if os.environ.get("LOCAL_RANK", "0") == "0":
                print(f"error: {error.filename}: {error.strerror}.", file=sys.stderr, flush=True)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)

    return wrapped
