"""Work cut into blocks that do not depend on the number of ranks, and dealt to the ranks in turn."""

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.run import rehearsal, watchdog
from pixelrec_train.run.signals import go_on


def in_blocks(count, size, work, after=None):
    """[work(numbers of one block) for every block of 0 … count - 1], in order, on every rank.

    Every rank calls work equally often, because under ZeRO-3 a call of the model is a collective; a rank
    without a block of its own repeats the last one.

    Args:
        after: called on every rank when each has done a block: with what this rank's gave, None where it has
            repeated one, and the numbers that all ranks have done together.
    """
    blocks = blocks_of(count, size)
    ranks, mine, done = distributed.world_size(), {}, {}
    for first in range(0, len(blocks), ranks):
        watchdog.at(f"evaluation: block {first} of {len(blocks)}")
        go_on()
        number = min(first + distributed.rank(), len(blocks) - 1)
        mine[number] = work(blocks[number])
        if after:
            own = mine[number] if number == first + distributed.rank() else None
            after(own, sum(map(len, blocks[first : first + ranks])))
        rehearsal.block_done()
    for part in distributed.gather_objects(mine):
        done |= part
    return [done[number] for number in range(len(blocks))]


def dealt(count, size):
    """Blocks of this rank, equally many on every rank; empty ones at the end where others have more."""
    blocks = blocks_of(count, size)
    for first in range(0, len(blocks), distributed.world_size()):
        number = first + distributed.rank()
        yield blocks[number] if number < len(blocks) else np.zeros(0, np.int64)
        rehearsal.block_done()


def blocks_of(count, size):
    """Numbers 0 … count - 1 in equal parts of at most `size`."""
    return np.array_split(np.arange(count), -(-count // size))
