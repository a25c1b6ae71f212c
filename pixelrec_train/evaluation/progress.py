"""How a long evaluation goes: the figures of the users judged so far, at most 20 times."""

import time
from typing import NamedTuple

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.evaluation.metrics import of_counts
from pixelrec_train.run.log import say

PARTS = 20  # of all users, behind each of which it is told
PATIENCE = 5.0  # seconds within which nobody asks how it goes


class SoFar(NamedTuple):
    done: int  # users
    of: int
    figures: dict  # {"recall@10": …, "ndcg@10": …} of those who have a target; empty where nobody has
    users_per_s: float

    def text(self):
        figures = "".join(f"{name} {value:.4f} | " for name, value in self.figures.items())
        return f"{self.done:,} of {self.of:,} users | {figures}{self.users_per_s:.1f} users/s"


def saying(what):
    """A `tell` that says it on rank 0's screen; what: is evaluated."""
    return lambda so_far: say(f"{what}: {so_far.text()}")


class Progress:
    """Adds up places, and tells of them after every 5 % of the users; not in the first PATIENCE seconds.

    Users whose searches are equally wide are judged together, narrow ones first, so these figures are those
    of another lot than the final ones.
    """

    def __init__(self, users, topk, tell):
        """
        Args:
            users: all there are.
            topk: cut-offs; it tells of 10, or of the largest.
            tell: takes SoFar; called on every rank alike.
        """
        self.users, self.topk, self.tell = users, topk, tell
        self.counts, self.done, self.begun = np.zeros(max(topk) + 1, np.int64), 0, time.monotonic()

    def add(self, found, users):
        """found: of this rank's block, see in_blocks; users: of all ranks' blocks."""
        if found is not None:
            known = found.places[found.places >= 0]
            self.counts += np.bincount(known, minlength=len(self.counts))
        before, self.done = self.done, self.done + users
        parts = [PARTS * done // self.users for done in (before, self.done)]
        if parts[0] == parts[1] or self.done == self.users:
            return
        seconds = time.monotonic() - self.begun
        told = distributed.gather_objects((self.counts, seconds))
        if told[0][1] >= PATIENCE:  # by the first rank's clock, so that all ranks do the same
            self.tell(self.so_far(sum(counts for counts, _ in told), told[0][1]))

    def so_far(self, counts, seconds):
        k = 10 if 10 in self.topk else max(self.topk)
        figures = of_counts(counts, counts.sum(), self.topk) if counts.any() else {}
        shown = {name: figures[name] for name in (f"recall@{k}", f"ndcg@{k}") if figures}
        return SoFar(self.done, self.users, shown, self.done / seconds)
