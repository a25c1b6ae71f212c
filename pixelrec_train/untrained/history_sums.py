"""Scores that are sums over a history's items, the newest of them weighing most.

score = recency(histories) @ left @ right.T, so what ranks is one vector of the user and one of every item.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class HistorySums:
    """Called with b non-empty histories, oldest item first, it gives [b, num_items] scores."""

    left: object  # [num_items, F] dense or sparse: what an item adds to the user's vector
    right: object | None  # [num_items, F]: the item as a candidate; None = a column for each
    recent: int | None  # only so many of a history's newest items count; None = all
    decay: float  # an item weighs this share of the one after it

    @property
    def num_items(self):
        return self.left.shape[0]

    def users(self, histories):
        """[b, F] vectors, dense or sparse as `left` is."""
        return recency(histories, self.num_items, self.recent, self.decay) @ self.left

    def __call__(self, histories):
        users = self.users(histories)
        return dense(users if self.right is None else users @ self.right.T)

    def pairs(self):
        """[num_items, num_items] what an item of the history adds to a candidate's score."""
        return self.left if self.right is None else self.left @ self.right.T

    def truncated(self, width, seed=0):
        """HistorySums with dense vectors of so many columns, whose scores are nearest: a truncated SVD; or
        the very scores, where width reaches num_items."""
        from sklearn.utils.extmath import randomized_svd  # a second to import, of every training that starts

        same = self.left is self.right  # then pairs are the squares of its own singular values
        if width >= self.num_items:
            return replace(self, left=dense(self.pairs()), right=None)
        matrix = self.left if same else self.pairs()
        u, s, v = randomized_svd(matrix, min(width, *matrix.shape), random_state=seed)
        if same:
            left = right = (u * s).astype(np.float32)
        else:
            left, right = ((x * np.sqrt(s)).astype(np.float32) for x in (u, v.T))
        return replace(self, left=left, right=right)


def taken_before(num_items, recent=None):
    """HistorySums of how often a history, or its newest `recent` items, holds an item."""
    return HistorySums(sparse.identity(num_items, np.float32, "csr"), None, recent, 1.0)


def recency(histories, num_items, recent, decay):
    """[b, num_items] sparse: 1 for a history's newest item, decay for the one before, decay ** 2, …"""
    if recent is not None:
        histories = [history[-recent:] for history in histories]
    lengths = np.array([len(history) for history in histories])
    age = np.concatenate([np.arange(n)[::-1] for n in lengths])
    rows = np.repeat(np.arange(len(histories)), lengths)
    shape = (len(histories), num_items)
    return sparse.csr_matrix((np.power(decay, age), (rows, np.concatenate(histories))), shape)


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def scaled(scores, histories, keep_seen):
    """Scores of different recommenders side by side: in units of the best candidate's."""
    return scores / largest(scores, histories, keep_seen)


def largest(scores, histories, keep_seen):
    """[b, 1] the largest score, unless keep_seen of an item outside the history; at least 1e-9."""
    inside = np.zeros(scores.shape, bool)
    if not keep_seen:
        mark(inside, histories)
    return np.maximum(np.where(inside, 0, scores).max(1, keepdims=True), 1e-9)


def mark(rows, histories):
    """rows[b, i] = True where item i is in history b."""
    lengths = [len(history) for history in histories]
    rows[np.repeat(np.arange(len(rows)), lengths), np.concatenate([np.zeros(0, np.int64), *histories])] = True
