"""A rehearsal: what comes late in a run is tried early, and the first block of it is enough.

Whoever works in blocks says after the first that it is done; in a rehearsal that is where the work ends.
"""

from contextlib import contextmanager

going_on = False


class Enough(Exception):
    """The first block is done."""


@contextmanager
def first_block_alone():
    """Context of work that ends, without a result, behind its first block."""
    global going_on
    going_on = True
    try:
        yield
    except Enough:
        pass
    finally:
        going_on = False


def block_done():
    """To be called behind a block, on all ranks alike."""
    if going_on:
        raise Enough
