"""ItemKNN: items that the takers of the history's items took.

Source: Deshpande and Karypis, TOIS 2004.
"""

import numpy as np
from scipy import sparse

from pixelrec_train.untrained.history_sums import HistorySums, recency

ALL_PAIRS = 100_000  # items up to which every pair is kept: the figures of small catalogues are exact
# Of an item of a larger catalogue, those with the highest cosines. Kept where every pair is known, validation
# ndcg@10 with 100, 200, 400 and all of them is 7.91, 7.94, 7.96 and 7.98 % on amazon_scientific (5.6 % of the
# pairs lie beyond 200), 7.56, 7.62, 7.63 and 7.64 % on amazon_industrial (3.9 %): hardly anything is lost.
NEIGHBOURS = 200
ITEMS_AT_ONCE = 4096


def item_knn(taken, num_items, recent=10, decay=0.8):
    """HistorySums of cosines of the columns of the user x item matrix; an item is no neighbour of its own.

    Of more than ALL_PAIRS items each keeps its NEIGHBOURS alone: memory grows with items, not with pairs.

    Users count with what they took in training. The newest of the history's last `recent` items weighs 1,
    each one before it `decay` times as much. Both were chosen by validation ndcg@10 on amazon_scientific.

    Args:
        taken: interactions.Taken of the split.
    """
    return ItemKnn(taken, num_items, recent, decay).sums()


class ItemKnn:
    """The counts behind item_knn, from which one user can be taken out."""

    def __init__(self, taken, num_items, recent=10, decay=0.8):
        users, items = taken.pairs()
        shape = (int(users.max()) + 1, num_items)
        self.took = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
        self.took.sum_duplicates()
        self.took.data[:] = 1  # taking an item twice counts once
        self.takers = np.asarray(self.took.sum(0)).ravel()  # [num_items]
        self.recent, self.decay = recent, decay
        # [num_items, num_items] users who took both
        self.together = None if num_items > ALL_PAIRS else self.pairs_of(self.took.T.tocsr(), 0)

    def pairs_of(self, takers, first):
        """[n, num_items] users who took both, of the n items from `first` on; takers: their [n, users]."""
        pairs = (takers @ self.took).tocoo()
        pairs.data[pairs.row + first == pairs.col] = 0
        pairs = pairs.tocsr()
        pairs.eliminate_zeros()
        return pairs

    def sums(self, done=lambda items: None):
        """HistorySums of the cosines. done: is called with how many more items have theirs."""
        norms = 1 / np.sqrt(np.maximum(self.takers, 1))
        if self.together is not None:
            scale = sparse.diags(norms)
            return HistorySums((scale @ self.together @ scale).tocsr(), None, self.recent, self.decay)
        takers, blocks = self.took.T.tocsr(), []
        for first in range(0, len(norms), ITEMS_AT_ONCE):
            own = slice(first, first + ITEMS_AT_ONCE)
            pairs = self.pairs_of(takers[own], first)
            blocks.append(nearest(sparse.diags(norms[own]) @ pairs @ sparse.diags(norms), NEIGHBOURS))
            done(len(norms[own]))
        return HistorySums(sparse.vstack(blocks, "csr"), None, self.recent, self.decay)

    def of_its_own(self):
        """HistorySums in which an item is a neighbour of its own: where the history is no candidate, the same
        ranking from two equal sides, of which a truncated SVD keeps more."""
        columns = (self.took @ sparse.diags(1 / np.sqrt(np.maximum(self.takers, 1)))).T.tocsr()
        return HistorySums(columns, columns, self.recent, self.decay)

    def without(self, histories, users):
        """[b, num_items] scores of the next item as if each history's user had taken nothing in training.

        A user who is being learned from stands in the counts with the very items to be found: scores that
        are part of a model must not have seen them, or it learns to trust what will not be there.

        Args:
            histories: b non-empty arrays of items that these users took in training.
            users: [b] numbers, as in Taken.
        """
        others = self.takers - 1  # of an item that the user took
        shares = np.where(others > 0, 1 / np.sqrt(np.maximum(others, 1)), 0).astype(np.float32)
        weights = recency(histories, len(self.takers), self.recent, self.decay) @ sparse.diags(shares)
        if self.together is None:
            scores = ((weights @ self.took.T) @ self.took - weights @ sparse.diags(self.takers)).toarray()
        else:
            scores = (weights @ self.together).toarray()
        own = self.took[users]
        rows, items = np.repeat(np.arange(len(own.indptr) - 1), np.diff(own.indptr)), own.indices
        # A pair of two of the user's items has one taker less, the user; an item is no pair of itself.
        by_user = np.asarray(weights.sum(1)).ravel()[rows] - np.asarray(weights[rows, items]).ravel()
        corrected = (scores[rows, items] - by_user) * shares[items]
        scores /= np.sqrt(np.maximum(self.takers, 1))
        scores[rows, items] = corrected
        return scores


def nearest(cosines, most):
    """Of each row of a sparse matrix the `most` largest entries; of equal ones those of smaller columns."""
    cosines = cosines.tocsr()
    cosines.sort_indices()
    row = np.repeat(np.arange(cosines.shape[0]), np.diff(cosines.indptr))
    order = np.lexsort((-cosines.data, row))
    kept = np.sort(order[np.arange(len(order)) - cosines.indptr[row] < most])
    entries = cosines.data[kept].astype(np.float32), (row[kept], cosines.indices[kept])
    return sparse.csr_matrix(entries, cosines.shape)
