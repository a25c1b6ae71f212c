"""One table for all ranks of a machine: memory without a name, which goes when the last of them has ended."""

import contextlib
import mmap
import os
import secrets

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.run.log import say


def shared_table(rows, width):
    """([rows, width] fp32, whether this rank has to write it: one of each machine does, for all of them).

    Every rank calls it. Who reads what another has written waits for it (distributed.barrier) first.
    """
    if distributed.world_size() == 1:
        return np.empty((rows, width), np.float32), True
    name, own = f"items-{secrets.token_hex(8)}", None
    if distributed.local_rank() == 0 and hasattr(os, "memfd_create"):
        own = os.memfd_create(name)
        os.ftruncate(own, 4 * rows * width)
    offers = distributed.gather_objects(None if own is None else (f"/proc/{os.getpid()}/fd/{own}", name))
    found = own if own is not None else opened(offer for offer in offers if offer)
    table = None if found is None else mapped(found, rows, width)
    alone = sum(distributed.gather_objects(table is None))  # all have opened theirs now
    if found is not None:
        os.close(found)
    if alone:
        say(f"item embeddings: {alone} ranks hold a table of their own, as they cannot share a machine's")
    return (np.empty((rows, width), np.float32), True) if table is None else (table, own is not None)


def opened(offers):
    """The file of the first offer that is one of this machine; None where none is.

    Args:
        offers: (path, name): under the same path another machine has something else, or nothing.
    """
    for path, name in offers:
        with contextlib.suppress(OSError):
            if os.readlink(path) == f"/memfd:{name} (deleted)":
                return os.open(path, os.O_RDWR)
    return None


def mapped(file, rows, width):
    return np.frombuffer(mmap.mmap(file, 4 * rows * width), np.float32).reshape(rows, width)
