"""Errors that are sentences for a person: they are printed as they are, without a traceback (ending.py)."""

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
    """What an exception of a library says, cut to a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
