"""Where every rank is, so that a run that has lost one, or stands still, says which, where and in what phase.

Each rank says once a second what it is doing, into a store that all can read, from a thread of its own: also
while it computes, or waits in a collective. Rank 0 looks after all, the others after rank 0. Whose word no
longer changes is gone; where words change but no rank gets any further, the run stands still. Both end it,
on all ranks, with one sentence. For how long a word is the same, its reader times: clocks of hosts differ.
"""

import contextlib
import faulthandler
import os
import platform
import re

from pixelrec_train.errors import InputError, StopRequested, TrainingStopped
from pixelrec_train.run.watcher import GRACE, KILLED, Watcher, shortened

OF_A_PEER = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|socket|tcpstore", re.IGNORECASE)


watcher = None  # of this process; None on one rank, which waits for nobody


def start(store, rank, names, limit_s):
    """Begin to say where this rank is, and to watch the others. All ranks call it.

    Args:
        store: a torch.distributed.Store that rank 0 or its launcher holds.
        names: process_name() of every rank.
        limit_s: seconds without at() on any rank after which the run is taken to stand still.
    """
    global watcher
    watcher = Watcher(store, rank, names, limit_s)
    watcher.start()


def stop():
    global watcher
    if watcher:
        watcher.stop()
        watcher = None


def leave():
    """After a failure, before the process ends: a thread that still talks to the store while Python shuts
    down may abort it (status -6). Whoever hangs on the way out is ended, as the thread would have done."""
    if watcher:
        stop()
        faulthandler.dump_traceback_later(GRACE, exit=True)


def at(phase):
    """This rank has got as far as this. Costs nothing; to be called wherever something may take long."""
    if watcher:
        watcher.at(phase)


@contextlib.contextmanager
def busy(phase=None):
    """Work of this rank alone that may last, without a collective in it, which might spin: while the process
    uses a core or the disk, the rank moves. Also in front of a function: @busy("reading")."""
    if watcher is None:
        yield
        return
    before = watcher.phase
    if phase:
        watcher.at(phase)
    watcher.busy += 1
    try:
        yield
    finally:
        if watcher:
            watcher.busy -= 1
            watcher.phase = before


def tell(note):
    """note(text) is called with the reason when the watchdog ends the run."""
    if watcher:
        watcher.tell = note


def first_to_fail():
    """Whether no other rank has failed before; without other ranks always true.

    Before the ranks have met, or when rank 0 is gone, the first rank of each machine speaks.
    """
    return watcher.first_to_fail() if watcher else os.environ.get("LOCAL_RANK", "0") == "0"


def linger():
    """After a failure on the rank that holds the store: long enough for the others to hear of it."""
    if watcher:
        watcher.linger()


def of_a_peer(error):
    """Whether an error may be that another rank has vanished; a sentence of ours says what it is itself."""
    ours = isinstance(error, (InputError, TrainingStopped, StopRequested))
    return watcher is not None and not ours and bool(OF_A_PEER.search(str(error)))


def lost_peer(error):
    """A sentence when the error is that another rank has vanished without a word, else None."""
    if not of_a_peer(error):
        return None
    try:
        gone = watcher.silent()
    except RuntimeError:
        gone = [f"{watcher.named(0)} is gone without a word, last in {watcher.phase_of(0)}"]
    return f"{shortened(gone)}: {KILLED}" if gone and watcher.failed_at is None else None


def process_name():
    return f"process {os.getpid()} on {platform.node()}"
