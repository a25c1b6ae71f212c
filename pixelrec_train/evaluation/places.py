"""Where every held-out user's target stands in a recommender's list: the one rule all of them are judged by.

Items of the user's whole history are left out, unless --keep_seen; equally good items are ordered by number;
a target that is not among the first max(topk), or is left out itself, is absent: its place is max(topk).
"""

from typing import NamedTuple

import numpy as np

from pixelrec_train.evaluation.blocks import in_blocks


class Judged(NamedTuple):
    places: np.ndarray  # [E], 0 = first, max(topk) = absent
    counts: dict  # {metric: value} of Recommender.counts


def judge(recommender, held_out, ranking):
    """Judged, of every user of a HeldOut; the same on every rank, for any number of ranks.

    ranking: RankingFlags.
    """
    k, groups, found = max(ranking.topk), recommender.groups(held_out, ranking), []
    for users, size in groups:

        def work(numbers, users=users):
            users = users[numbers]
            left_out = [held_out.history(e)[: 0 if ranking.keep_seen else None] for e in users]
            return recommender.find_users(held_out, users, left_out, k)

        found += in_blocks(len(users), size, work)
    order = np.argsort(np.concatenate([users for users, _ in groups]))
    places, known = zip(*found, strict=True)
    return Judged(np.concatenate(places)[order], recommender.counts(known, order, ranking.topk))
