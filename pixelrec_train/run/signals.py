"""Being asked to stop: by a scheduler (SIGTERM, SIGUSR1), by Ctrl-C, or by a launcher that has died."""

import atexit
import multiprocessing
import os
import signal
import time
from contextlib import contextmanager

import psutil

from pixelrec_train import distributed

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)  # where ranks got several, the last of these counts
LOOK = 1.0  # seconds between two looks at the launchers


class StopSignals:
    """While this lasts a signal ends nothing by itself: asked() says that one came, to all ranks alike.

    A second Ctrl-C ends at once.
    """

    def __init__(self):
        self.agree = distributed.Agreement()
        self.launchers, self.looked = launchers(), time.monotonic()
        self.place = 0  # 1 + that in SIGNALS; 0 = none came

    def __enter__(self):
        self.before = {number: signal.signal(number, self.note) for number in SIGNALS}
        return self

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number, frame):
        if number == signal.SIGINT and self.place == place_of(number):
            raise KeyboardInterrupt
        self.place = max(self.place, place_of(number))
        if distributed.rank() == 0:  # not print: the signal may have come in the middle of one
            os.write(2, f"{signal.Signals(number).name}: saving after this step, then ending\n".encode())

    def asked(self):
        """The signal that came to any rank, else None; every rank calls it equally often.

        What comes between two calls is known to all ranks at the call after the next, so that none waits.
        """
        if self.launchers and time.monotonic() - self.looked > LOOK:
            self.looked = time.monotonic()
            if launchers() != self.launchers:
                self.place = max(self.place, place_of(signal.SIGTERM))
        place = self.agree(self.place)
        return SIGNALS[place - 1] if place else None

    @contextmanager
    def breaking_off(self):
        """What runs here, on all ranks, may be broken off at any go_on(): a resumed run does it anew."""
        global breaking
        breaking = self
        try:
            yield
        finally:
            breaking = None


class BrokenOff(Exception):
    """A signal came to any rank in the middle of something that can be done anew; raised on all of them."""

    def __init__(self, number):
        self.number = number


breaking = None  # the StopSignals whose breaking_off() runs


def go_on():
    """Called between two parts of something long, equally often by every rank. Raises BrokenOff."""
    if breaking and (number := breaking.asked()):
        raise BrokenOff(number)


def place_of(number):
    return 1 + SIGNALS.index(number)


def launchers():
    """Processes above this one that would leave the ranks behind if they were killed: their ids."""
    if (parent := psutil.Process().parent()) is None:  # the first process of a container has none
        return []
    words = " ".join(parent.cmdline())
    if "deepspeed.launcher.launch" in words or "deepspeed/launcher/launch" in words:
        return [parent.pid, parent.ppid()]
    return [parent.pid] if "torchrun" in words or "torch.distributed.run" in words else []


leaving = multiprocessing.RawValue("b", 0)  # of this process; its forked workers see it


@atexit.register  # after multiprocessing's own, so before it: that one sends SIGTERM to workers, and waits
def leave():
    leaving.value = 1


def ignore_signals(worker):
    """For a data loader's worker: it is there for batches until its rank leaves.

    A launcher that is stopped sends SIGTERM to workers as well, and a rank that has lost one cannot save.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if multiprocessing.get_start_method() == "fork":
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0) if leaving.value else None)
