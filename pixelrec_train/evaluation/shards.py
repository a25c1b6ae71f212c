"""A catalogue's index, cut over the ranks: each looks through its own items for the users of all of them.

An item's score is one number wherever it is computed, so places are sums over the parts and lists are merged:
they are the same for any number of ranks.
"""

from typing import NamedTuple

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.evaluation.exact import scores_of_pairs
from pixelrec_train.evaluation.index import build_index, check_finite, counted, ranked, unit
from pixelrec_train.evaluation.lists import keys_of
from pixelrec_train.evaluation.recommender import Lists
from pixelrec_train.evaluation.vectors import Vectors
from pixelrec_train.run import watchdog


class Question(NamedTuple):
    """What a rank wants to know of its users."""

    queries: np.ndarray  # [b, D] fp32, of length 1 where cosines count
    seen: list  # b arrays of item numbers, which are left out
    k: int
    placed: np.ndarray  # [p] users whose target is looked for
    target: np.ndarray  # [p] item numbers
    value: np.ndarray  # [p] fp32 their scores
    listed: np.ndarray  # [l] users who get lists


class Answer(NamedTuple):
    """Of one part of the catalogue."""

    ahead: np.ndarray  # [p] its items before the target, at most k
    items: np.ndarray  # [l, k] the best of its items, -1 where there are fewer
    scores: np.ndarray  # [l, k] fp32, nan where there is no item


class Shards:
    def __init__(self, table, retrieval, cosines=True):
        """
        Args:
            table: [num_items, D] embeddings, of which this rank indexes its part.
            retrieval, cosines: as of build_index.

        Raises:
            InputError: as build_index.
        """
        self.table, self.cosines = np.ascontiguousarray(table, np.float32), cosines
        check_finite(self.table)  # of all, so that every rank raises
        ranks, rank, count = distributed.world_size(), distributed.rank(), len(table)
        self.first, self.end = count * rank // ranks, count * (rank + 1) // ranks
        part = self.table[self.first : self.end]
        with watchdog.busy("building the index"):
            self.index = build_index(part, retrieval, cosines) if len(part) else None

    def find(self, queries, left_out, k, target=None, wanted=None):
        """Places of targets, and the best items of users. All ranks call it together, each for its own.

        Args:
            queries: [b, D] fp32 user embeddings, of any length where cosines count.
            left_out: b arrays of item numbers.
            target: [b] item numbers; one that is not known is -1. None = no places are looked for.
            wanted: [b] bool, who gets a list; None = all.

        Returns:
            [b] places among the items that are not left out, 0 = first, at most k; k where the target is left
            out itself, or not known. And Lists of [b, k], empty where no list is wanted.
        """
        question = self.question(queries, left_out, k, target, wanted)
        answers = [self.answer(one) for one in distributed.gather_objects(question)]
        answers = [of_rank[distributed.rank()] for of_rank in distributed.gather_objects(answers)]
        places, lists = np.full(len(queries), k), no_lists(len(queries), k)
        places[question.placed] = np.minimum(sum(answer.ahead for answer in answers), k)
        lists.items[question.listed], lists.scores[question.listed] = merged(answers, k)
        return places, lists

    def question(self, queries, left_out, k, target, wanted):
        queries = unit(queries) if self.cosines else np.ascontiguousarray(queries, np.float32)
        target = np.full(len(queries), -1) if target is None else np.asarray(target, np.int64)
        keys = np.arange(len(target)) * len(self.table) + target
        placed = np.flatnonzero((target >= 0) & ~np.isin(keys, keys_of(left_out, len(self.table))))
        target, listed = target[placed], np.arange(len(queries)) if wanted is None else np.flatnonzero(wanted)
        value = np.zeros(0, np.float32)
        if len(placed):
            value = scores_of_pairs(queries[placed], Vectors(self.table[target], cosines=self.cosines))
        return Question(queries, left_out, k, placed, target, value, listed)

    def answer(self, asked):
        ahead, best = np.zeros(len(asked.placed), np.int64), no_lists(len(asked.listed), asked.k)
        if self.index is None:
            return Answer(ahead, *best)
        seen = [self.own(items) for items in asked.seen]

        def of(users):
            return asked.queries[users], [seen[user] for user in users]

        if len(asked.placed):
            queries, left_out = of(asked.placed)
            ahead = counted(self.index, queries, asked.value, asked.target - self.first, left_out, asked.k)
        if len(asked.listed):
            count = self.end - self.first
            items, scores = ranked(self.index, *of(asked.listed), asked.k, count, cosines=False)
            best = np.where(items < 0, -1, items + self.first), scores
        return Answer(ahead, *best)

    def own(self, items):
        """Those of [n] items that are of this part, as its index counts."""
        items = np.asarray(items, np.int64)
        return items[(items >= self.first) & (items < self.end)] - self.first


def no_lists(count, k):
    return Lists(np.full((count, k), -1), np.full((count, k), np.nan, np.float32))


def merged(answers, k):
    """[l, k] the best items of all parts, equals by number, and their scores. answers: part after part."""
    if len(answers) == 1:
        return answers[0].items, answers[0].scores
    items, scores = (
        np.concatenate(part, axis=1) for part in ([a.items for a in answers], [a.scores for a in answers])
    )
    # Equals stay in the order of the parts, which is that of their numbers.
    order = np.lexsort((-scores, items < 0), axis=1)[:, :k]
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
