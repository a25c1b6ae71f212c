"""Where every held-out user's target stands in a recommender's list: the one rule all of them are judged by.

Items of the user's whole history are left out, unless --keep_seen; equally good items are ordered by number;
a target that is not among the first max(topk), or is left out itself, is absent: its place is max(topk).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pixelrec_train.evaluation.blocks import in_blocks
from pixelrec_train.evaluation.progress import Progress
from pixelrec_train.evaluation.recommender import Lists

UNKNOWN = -1  # the place of a target that nobody knows


class Judged(NamedTuple):
    places: np.ndarray  # [E] of the users whose target is known, 0 = first, max(topk) = absent
    counts: dict  # {metric: value} of Recommender.counts
    lists: Lists | None = None  # of max(topk) items, of users that were asked for, also without a target


def with_targets(held_out):
    """The HeldOut of those whose target is known."""
    known = held_out.target >= 0
    if known.all():
        return held_out
    fields = ("users", "start", "end", "target")
    return replace(held_out, **{name: getattr(held_out, name)[known] for name in fields})


def judge(recommender, held_out, ranking, tell=None, keep_lists=False):
    """Judged, of every user of a HeldOut; the same on every rank, for any number of ranks.

    Users whose target is not known (-1) are ranked for and not judged.

    Args:
        ranking: RankingFlags.
        tell: of Progress, on how it goes; None = nobody is told.
        keep_lists: whether Judged has them: E * max(topk) items and scores in memory. Or the numbers of the
            users, increasing, of whom it has them.
    """
    k, groups, found = max(ranking.topk), recommender.groups(held_out, ranking), []
    kept = np.zeros(len(held_out), bool)
    if keep_lists is not False:
        kept[slice(None) if keep_lists is True else keep_lists] = True
    progress = tell and Progress(len(held_out), ranking.topk, tell)
    for users, size in groups:

        def work(numbers, users=users):
            users = users[numbers]
            left_out = [held_out.history(e)[: 0 if ranking.keep_seen else None] for e in users]
            one = recommender.find_users(held_out, users, left_out, k, kept[users])
            one = one._replace(places=np.where(held_out.target[users] < 0, UNKNOWN, one.places))
            return one._replace(lists=one.lists and Lists(*(part[kept[users]] for part in one.lists)))

        found += in_blocks(len(users), size, work, progress and progress.add)
    users = np.concatenate([users for users, _ in groups])
    order = np.argsort(users)
    places, known, lists = zip(*found, strict=True)
    places = np.concatenate(places)[order]
    labelled = places != UNKNOWN
    counts = recommender.counts(known, order[labelled], ranking.topk) if labelled.any() else {}
    if not kept.any():
        return Judged(places[labelled], counts)
    order = np.argsort(users[kept[users]])
    lists = Lists(*(np.concatenate(part)[order] for part in zip(*lists, strict=True)))
    return Judged(places[labelled], counts, lists)
