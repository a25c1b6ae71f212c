"""Which items are nearest to a user: lists by FAISS or by exact scores, and places, which need no list."""

from functools import cached_property

import numpy as np

from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.exact import ExactIndex
from pixelrec_train.evaluation.faiss_index import FaissIndex, way_of_search
from pixelrec_train.evaluation.lists import keys_of
from pixelrec_train.evaluation.vectors import Vectors, norms

WIDER = 4  # users share a search if none of them needs so many times the items that another does


class Index:
    """A catalogue's items; those that share a vector, such as those without text, are one vector here."""

    def __init__(self, table, way, cosines):
        """
        Args:
            table: [num_items, D] fp32, of any length each; it is not copied, but to a GPU.
            way: of way_of_search.
            cosines: directions alone count.
        """
        marks = np.fromiter((hash(vector.tobytes()) for vector in table), np.int64, len(table))
        _, first, of = np.unique(marks, return_index=True, return_inverse=True)
        place = np.argsort(np.argsort(first))  # of each distinct vector when they are in the order of items
        self.of, self.first = place[of], np.sort(first)  # [num_items] vectors, [M] items
        self.ptr = np.append(0, np.cumsum(np.bincount(self.of)))
        self.items = self.of.argsort(kind="stable")  # [ptr[m] : ptr[m + 1]] share vector m, by number
        self.vectors = Vectors(table, None if len(first) == len(table) else self.first, cosines)
        self.way, self.exact = way, ExactIndex(self.vectors)

    @cached_property
    def keys(self):
        """[num_items], increasing: of each item, behind those of vectors before its own."""
        return self.of[self.items] * len(self.of) + self.items

    @cached_property
    def faiss(self):
        return FaissIndex(self.vectors, half=self.way == "faiss_fp16")

    def search(self, queries, wanted):
        """As ExactIndex.search, in any order and with the same scores."""
        most = int(min(wanted.max(), len(self.vectors)))
        if self.way == "exact" or most > self.faiss.most:
            return self.exact.search(queries, wanted)
        rows, vectors = self.faiss.search(queries, most)
        return rows, vectors, self.exact.scores_of(queries, rows, vectors)


def build_index(embeddings, retrieval, cosines=True):
    """[num_items, D] embeddings, of any length each -> Index over their directions, or as they are.

    Raises:
        InputError: a number of them is nan or infinite, or FAISS is needed and not there.
    """
    table = np.ascontiguousarray(embeddings, np.float32)
    check_finite(table)
    return Index(table, way_of_search(retrieval), cosines)


def check_finite(table):
    """Raises InputError where a number of a [num_items, D] table is nan or infinite."""
    parts = (table[first : first + 8192] for first in range(0, len(table), 8192))
    if count := sum(int((~np.isfinite(part).all(axis=1)).sum()) for part in parts):
        raise InputError(
            f"the embeddings of {count:,} of {len(table):,} items are nan or infinite, so nothing can "
            f"be ranked by them. Take an earlier checkpoint, or train with a lower --learning_rate."
        )


def unit(vectors, dtype=np.float32):
    """[n, D] -> the same directions with length 1; a zero vector stays zero."""
    vectors = np.asarray(vectors, dtype)
    return vectors / norms(vectors)[:, None]


def recommend(index, queries, seen, k, num_items):
    """[b, k] the items of `ranked`."""
    return ranked(index, queries, seen, k, num_items)[0]


def ranked(index, queries, seen, k, num_items, cosines=True):
    """The k best items of each user that the user has not seen.

    So many more are looked for as the user has seen. Equal scores are ordered by item number.

    Args:
        queries: [b, D] user embeddings.
        seen: b arrays of item numbers to leave out.
        cosines: as of the index.

    Returns:
        [b, k] item numbers, best first, and their scores; -1 and nan where fewer than k items are left.
    """
    queries = unit(queries) if cosines else np.ascontiguousarray(queries, np.float32)
    own = np.unique(keys_of(seen, num_items))
    wanted = np.minimum(k + np.bincount(own // num_items, minlength=len(queries)), num_items)
    items, values = np.full((len(queries), k), -1), np.full((len(queries), k), np.nan, np.float32)
    steps = np.floor(np.log(wanted / wanted.min()) / np.log(WIDER))
    for users in (np.flatnonzero(steps == step) for step in np.unique(steps)):
        row, vector, score = index.search(queries[users], wanted[users])
        row, item, score = items_of(index, row, vector, score, wanted[users])
        new = ~np.isin(users[row] * num_items + item, own)
        row, item, score = row[new], item[new], score[new]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        row, place, item, score = (x[place < k] for x in (users[row], place, item, score))
        items[row, place], values[row, place] = item, score
    return items, values


def items_of(index, row, vector, score, wanted):
    """Vectors' items, by user, best first, equals by number; of each user wanted[b] or more.

    Args:
        row, vector, score: [n] of Index.search.
    """
    order = np.lexsort((vector, -score, row))
    row, vector, score = row[order], vector[order], score[order]
    size = np.diff(index.ptr)[vector]
    # Before a run of equals: so many of each of them that none is missed, whose number may be low.
    run = np.ones(len(row), bool)
    run[1:] = (row[1:] != row[:-1]) | (score[1:] != score[:-1])
    start = np.maximum.accumulate(np.where(run, np.arange(len(row)), 0))
    ahead = np.cumsum(size) - size
    count = np.clip(wanted[row] - (ahead[start] - ahead[np.searchsorted(row, row)]), 0, size)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    item = index.items[np.repeat(index.ptr[vector], count) + within]
    row, score = np.repeat(row, count), np.repeat(score, count)
    order = np.lexsort((item, -score, row))
    return row[order], item[order], score[order]


def counted(index, queries, value, target, seen, k):
    """[b] how many items that the user has not seen are before the user's target, at most k.

    Those that score higher, and of equal ones those with a smaller number, as in the lists of `ranked`: no
    list is made.

    Args:
        queries: [b, D] fp32 user embeddings, of length 1 where cosines count.
        value: [b] fp32 the targets' scores.
        target: [b] item numbers; one of another part of a catalogue is below 0 or behind the last item here.
        seen: b arrays of item numbers.
    """
    own, num_items = np.unique(keys_of(seen, len(index.of))), len(index.of)
    enough = k + np.bincount(own // num_items, minlength=len(queries))
    here, target = (target >= 0) & (target < num_items), np.clip(target, 0, num_items)
    vectors = np.where(here, index.of[np.minimum(target, num_items - 1)], -1)
    limit = np.searchsorted(index.first, target)  # vectors below it have an item before the target
    row, vector, higher, far = index.exact.ahead(queries, value, vectors, limit, enough)
    lower = np.searchsorted(index.keys, vector * num_items + target[row]) - index.ptr[vector]
    count = np.bincount(row, np.where(higher, np.diff(index.ptr)[vector], lower), len(queries))
    user, item = own // num_items, own % num_items
    pairs = row * len(index.first) + vector
    order = np.argsort(pairs)
    asked = user * len(index.first) + index.of[item]
    at = order[np.minimum(np.searchsorted(pairs[order], asked), len(order) - 1)] if len(order) else user
    # A seen item counts no more, if it has been counted.
    gone = (pairs[at] == asked) & (higher[at] | (item < target[user])) if len(order) else user < 0
    count -= np.bincount(user[gone], minlength=len(queries))
    return np.where(far, k, np.minimum(count, k)).astype(np.int64)
