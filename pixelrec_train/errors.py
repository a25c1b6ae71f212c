"""Errors that are sentences for a person: printed as they are, without a traceback (run/exit_status.py)."""

import errno
import signal


class InputError(Exception):
    """Bad input, bad flags, contradicting settings: what was found, what was expected, what to do."""


class TrainingStopped(Exception):
    """The run cannot go on: what happened, and what to change."""


class StopRequested(Exception):
    """Somebody asked the run to end, and it has saved where it stands."""

    def __init__(self, number, checkpoint):
        self.number = number
        super().__init__(f"{signal.Signals(number).name} received, saved {checkpoint}")


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


def of_a_place(error):
    """Whether an exception is about a place outside of our hands."""
    return isinstance(error, OSError) and error.errno in PLACES and bool(error.filename)
