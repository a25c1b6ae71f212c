"""Where every rank is, so that a run that stands still says which rank it waits for and in which phase.

Each rank says once a second what it is doing, into a store that all can read. A rank that has not moved for
too long reads what the others said, and ends the run with a sentence; so does one whose peer has failed. It
is a thread, so it works while the rank waits in a collective.
"""

import faulthandler
import json
import os
import platform
import re
import sys
import threading
import time

BEAT = 1.0  # seconds between two words of a rank
GRACE = 10.0  # seconds a rank has to end by itself after another failed
SILENT = 3.5  # seconds without a word: the process is gone
FAILED, BEHIND = "failed", "behind"
KILLED = "killed from outside, perhaps for want of memory (dmesg would say so)."
OF_A_PEER = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|socket|tcpstore", re.IGNORECASE)


class Watchdog(threading.Thread):
    """See start()."""

    def __init__(self, store, rank, ranks, limit_s):
        super().__init__(name="watchdog", daemon=True)
        self.store, self.rank, self.ranks, self.limit_s = store, rank, ranks, limit_s
        self.phase, self.moves, self.since = "start", 0, time.monotonic()
        self.over, self.failed_at = (
            threading.Event(),
            None,
        )  # failed_at: when another rank's failure was heard of
        self.tell = lambda text: None  # rank 0's log, when there is one

    def at(self, phase):
        self.phase, self.moves, self.since = phase, self.moves + 1, time.monotonic()

    def run(self):
        while not self.over.wait(BEAT):
            try:
                self.say_where()
                if self.store.check([BEHIND]):
                    self.end_standing_run()
                elif self.store.check([FAILED]):
                    self.end_with_the_others()
                elif time.monotonic() - self.since > self.limit_s:
                    self.report_standing_run()
            except RuntimeError:  # the store has gone with rank 0: the main thread finds out, or is ended
                if not self.over.wait(GRACE):
                    os._exit(1)

    def say_where(self):
        here = {"moves": self.moves, "phase": self.phase, "beat": time.time(), "is": process_name()}
        self.store.set(str(self.rank), json.dumps(here))

    def end_with_the_others(self):
        self.failed_at = self.failed_at or time.monotonic()
        if time.monotonic() - self.failed_at > GRACE:
            os._exit(1)

    def report_standing_run(self):
        everyone = self.read()
        least = min(other["moves"] for other in everyone.values())
        behind = [r for r, word in everyone.items() if word["moves"] == least]
        late = [f"rank {r} ({everyone[r]['is']}) in {everyone[r]['phase']!r}" for r in behind]
        wait = [f"rank {r} in {word['phase']!r}" for r, word in everyone.items() if r not in behind]
        sentence = f"nothing has moved for {self.limit_s / 60:.3g} minutes: {shortened(late)}" + (
            f" keeps the others waiting ({shortened(wait)})." if wait else " wait for each other."
        )
        sentence += " If that was slowness and no fault, raise --collective_timeout_minutes."
        if first_to_fail():
            print(f"error: {sentence}", file=sys.stderr, flush=True)
        self.tell(f"stopped: {sentence}")
        self.store.set(BEHIND, json.dumps(behind))

    def end_standing_run(self):
        if self.rank in json.loads(self.store.get(BEHIND)):
            faulthandler.dump_traceback()  # where exactly it stands, in every thread
        linger()
        os._exit(1)

    def read(self):
        """{rank: what it last said}."""
        ranks = [r for r in range(self.ranks) if self.store.check([str(r)])]
        return {r: json.loads(self.store.get(str(r))) for r in ranks}


def shortened(texts, most=4):
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def process_name():
    return f"process {os.getpid()} on {platform.node()}"


watchdog = None  # of this process; None on one rank, which waits for nobody


def start(store, rank, ranks, limit_s):
    """Begin to say where this rank is, and to watch that it moves.

    Args:
        store: a torch.distributed.Store that no other thread uses.
        limit_s: seconds without at() after which a run is taken to stand still.
    """
    global watchdog
    watchdog = Watchdog(store, rank, ranks, limit_s)
    watchdog.say_where()
    watchdog.start()


def stop():
    global watchdog
    if watchdog:
        watchdog.over.set()
        watchdog.join(GRACE)
        watchdog = None


def leave():
    """After a failure, before the process ends: a thread that still talks to the store while Python shuts
    down may abort it (status -6). Whoever hangs on the way out is ended, as the thread would have done."""
    if watchdog:
        stop()
        faulthandler.dump_traceback_later(GRACE, exit=True)


def at(phase):
    """This rank has got as far as this. Costs nothing; to be called wherever something may take long."""
    if watchdog:
        watchdog.at(phase)


def tell(note):
    """note(text) is called with the reason when the watchdog ends the run."""
    if watchdog:
        watchdog.tell = note


def first_to_fail():
    """Whether no other rank has failed before; without other ranks always true.

    Before the ranks have met, or when rank 0 is gone, the first rank of each machine speaks.
    """
    if watchdog and watchdog.failed_at:
        return False
    try:
        if watchdog:
            me = f"rank {watchdog.rank}"
            return watchdog.store.compare_set(FAILED, "", me).decode() == me
    except RuntimeError:
        return watchdog.rank == 1 or os.environ.get("LOCAL_RANK") == "0"
    return os.environ.get("LOCAL_RANK", "0") == "0"


def linger():
    """After a failure on the rank that holds the store: long enough for the others to hear of it."""
    if watchdog and watchdog.rank == 0:
        time.sleep(2 * BEAT)


def lost_peer(error):
    """A sentence when the error is that another rank has vanished without a word, else None."""
    if watchdog is None or not OF_A_PEER.search(str(error)):
        return None
    time.sleep(SILENT)
    if watchdog.failed_at:
        return None
    try:
        silent = {r: w for r, w in watchdog.read().items() if time.time() - w["beat"] > SILENT - BEAT / 2}
    except RuntimeError:
        return f"rank 0 is gone without a word: {KILLED}"
    gone = [f"rank {r} ({w['is']}) is gone without a word, last in {w['phase']!r}" for r, w in silent.items()]
    if not gone:
        return None
    return f"{shortened(gone)}: {KILLED}"
