"""How far a stage has come that says nothing else: a bar on a terminal, else lines with the time left."""

import sys
import time
from contextlib import contextmanager

from tqdm import tqdm

from pixelrec_train import distributed
from pixelrec_train.run import watchdog
from pixelrec_train.run.log import say

EVERY = 10.0  # seconds between lines; a stage that is over sooner is not mentioned
DELAY = 2.0  # seconds before there is a bar


@contextmanager
def progress(what, total=None, unit="rows"):
    """Yields a function that is called with how many more are done; rank 0 alone tells. Each call is a move.

    Args:
        what: is done, in words.
        total: how many there are; None = nobody knows.
    """
    if distributed.rank() == 0 and sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=f" {unit}", delay=DELAY, leave=False) as bar:
            yield moving(what, bar.update)
    else:
        yield moving(what, Lines(what, total, unit).add)


def moving(what, add):
    def more(count):
        watchdog.at(what)
        add(count)

    return more


class Lines:
    def __init__(self, what, total, unit):
        self.what, self.total, self.unit = what, total, unit
        self.done, self.begun = 0, time.monotonic()
        self.told = self.begun

    def add(self, count):
        self.done += count
        if (now := time.monotonic()) - self.told >= EVERY:
            self.told = now
            say(self.line(now - self.begun))

    def line(self, seconds):
        of, left = "", ""
        if self.total:
            of = f" of {self.total:,}"
            left = f", {seconds * max(self.total - self.done, 0) / max(self.done, 1):.0f}s left"
        speed = self.done / seconds
        return f"{self.what}: {self.done:,}{of} {self.unit}, {speed:,.0f}/s, {seconds:.0f}s{left}"
