"""EASE^R: the linear model of items by items that rebuilds the user x item matrix, in closed form."""

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from pixelrec_train.errors import InputError
from pixelrec_train.untrained.history_sums import HistorySums

MAX_ITEMS = 20_000  # of a dense matrix of items by items: 1.6 GB, thrice while it is made, and minutes
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0)  # lambda; of users, as it stands beside their counts
DECAYS = (1.0, 0.8)  # what an item weighs beside the one after it; 1 = as in the paper


def ease(taken, num_items, penalty, recent=None, decay=1.0):
    """HistorySums of B, which minimises |X - XB|^2 + penalty |B|^2 with a diagonal of zeros.

    Users count with what they took in training.

    Args:
        taken: interactions.Taken of the split.
        penalty: lambda of the paper.
        recent, decay: as in item_knn; the paper sums over the whole history.

    Raises:
        InputError: there are more than MAX_ITEMS items.

    Source: Steck, WWW 2019 (arXiv:1905.03375).
    """
    if num_items > MAX_ITEMS:
        raise InputError(
            f"ease inverts a matrix of items by items, and {num_items:,} items are more than {MAX_ITEMS:,}."
        )
    users, items = taken.pairs()
    shape = (int(users.max()) + 1, num_items)
    matrix = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
    matrix.data[:] = 1  # taking an item twice counts once
    gram = (matrix.T @ matrix).toarray(order="F")
    gram[np.diag_indices(num_items)] += penalty
    return HistorySums(weights(gram), None, recent, decay)


def weights(gram):
    """X'X + lambda, which is overwritten -> B = -P / diag(P), P its inverse, with zeros on the diagonal."""
    # Of a positive definite matrix, by its Cholesky factor: half the work, and no second matrix.
    factor, failed = lapack.spotrf(gram, lower=True, overwrite_a=True)
    assert not failed, "X'X + lambda is positive definite"
    inverse, _ = lapack.spotri(factor, lower=True, overwrite_c=True)
    b = np.tril(inverse)
    b += np.tril(b, -1).T
    b /= -np.diag(b)
    np.fill_diagonal(b, 0)
    return b
