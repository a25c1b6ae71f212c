"""Who encodes which item: the distinct items of one micro-batch of all ranks, dealt out by their tokens.

Every rank computes the same plan from the same seeds, so nothing is sent to agree on it.
"""

import heapq
from typing import NamedTuple

import numpy as np


class Shares(NamedTuple):
    """The plan as one rank sees it. Shares lie one behind the other in a table of ranks x rows."""

    mine: np.ndarray  # [I] the items this rank encodes; at least one
    place: np.ndarray  # [G] row of the table where each of the distinct items is found
    rows: int  # of every rank in the table: the items of the largest share
    tokens: np.ndarray  # [ranks] tokens of each share

    @staticmethod
    def plan(distinct, tokens, rank, ranks):
        """[G] item numbers and their tokens -> Shares."""
        owner = deal(tokens, ranks)
        by_owner = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=ranks)
        rows, first = counts.max(), np.cumsum(counts) - counts
        place = np.empty(len(distinct), np.int64)
        place[by_owner] = owner[by_owner] * rows + np.arange(len(distinct)) - np.repeat(first, counts)
        # A rank without an item reads one all the same: under ZeRO-3 each call of the model is a collective.
        mine = distinct[owner == rank] if counts[rank] else distinct[:1]
        return Shares(mine, place, int(rows), np.bincount(owner, tokens, minlength=ranks))


def deal(tokens, ranks):
    """[G] tokens -> [G] ranks: the longest text first, each to the rank with the fewest tokens so far.

    Source: Graham, SIAM J. Appl. Math. 1969 (longest processing time first).
    """
    owner = np.zeros(len(tokens), np.int64)
    if ranks == 1:
        return owner
    loads = [(0, rank) for rank in range(ranks)]
    for item in np.argsort(-tokens, kind="stable").tolist():
        load, rank = loads[0]
        owner[item] = rank
        heapq.heapreplace(loads, (load + int(tokens[item]), rank))
    return owner
