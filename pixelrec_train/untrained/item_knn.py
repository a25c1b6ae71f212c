"""ItemKNN: items that the takers of the history's items took."""

import numpy as np
from scipy import sparse

from pixelrec_train.untrained.history_sums import HistorySums


def item_knn(taken, num_items, recent=10, decay=0.8):
    """HistorySums of cosines of the columns of the user x item matrix; an item is no neighbour of its own.

    Users count with what they took in training. The newest of the history's last `recent` items weighs 1,
    each one before it `decay` times as much. Both were chosen by validation ndcg@10 on amazon_scientific.

    Args:
        taken: interactions.Taken of the split.

    Source: Deshpande and Karypis, TOIS 2004.
    """
    users, items = taken.pairs()
    shape = (int(users.max()) + 1, num_items)
    taken = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
    taken.data[:] = 1  # taking an item twice counts once
    norms = np.sqrt(np.maximum(np.asarray(taken.sum(0)).ravel(), 1))
    columns = taken @ sparse.diags(1 / norms)
    cosines = (columns.T @ columns).tocoo()
    cosines.data[cosines.row == cosines.col] = 0
    return HistorySums(cosines.tocsr(), None, recent, decay)
