"""EASE^R: the linear model of items by items that rebuilds the user x item matrix, in closed form."""

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from pixelrec_train.errors import InputError
from pixelrec_train.untrained.history_sums import HistorySums, recency

MAX_ITEMS = 20_000  # of a dense matrix of items by items: 1.6 GB, thrice while it is made, and minutes
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0)  # lambda; of users, as it stands beside their counts
DECAYS = (1.0, 0.8)  # what an item weighs beside the one after it; 1 = as in the paper


def ease(taken, num_items, penalty, recent=None, decay=1.0):
    """HistorySums of B, which minimises |X - XB|^2 + penalty |B|^2 with a diagonal of zeros; as of Ease."""
    return Ease(taken, num_items, penalty, recent, decay).sums()


class Ease:
    """The inverse P of X'X + penalty, from which one user can be taken out.

    Source: Steck, WWW 2019 (arXiv:1905.03375).
    """

    def __init__(self, taken, num_items, penalty, recent=None, decay=1.0):
        """Users count with what they took in training.

        Args:
            taken: interactions.Taken of the split.
            penalty: lambda of the paper.
            recent, decay: as in item_knn; the paper sums over the whole history.

        Raises:
            InputError: there are more than MAX_ITEMS items.
        """
        if num_items > MAX_ITEMS:
            raise InputError(
                f"ease inverts a matrix of items by items, and {num_items:,} items are more than "
                f"{MAX_ITEMS:,}."
            )
        users, items = taken.pairs()
        shape = (int(users.max()) + 1, num_items)
        self.took = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
        self.took.sum_duplicates()
        self.took.data[:] = 1  # taking an item twice counts once
        gram = (self.took.T @ self.took).toarray(order="F")
        gram[np.diag_indices(num_items)] += penalty
        self.inverse, self.penalty, self.recent, self.decay = inverse(gram), penalty, recent, decay

    def sums(self):
        """HistorySums of B = -P / diag(P), with zeros on the diagonal."""
        b = self.inverse / -np.diag(self.inverse)
        np.fill_diagonal(b, 0)
        return HistorySums(b, None, self.recent, self.decay)

    def of_its_own(self):
        """HistorySums of (I / penalty - P) / diag(P), which is B but for what an item adds to itself: where
        the history is no candidate, the same ranking, of which a truncated SVD keeps more."""
        b = -self.inverse
        b[np.diag_indices(len(b))] += 1 / self.penalty
        return HistorySums(b / np.diag(self.inverse), None, self.recent, self.decay)

    def without(self, histories, users):
        """[b, num_items] scores of the next item as if each history's user had taken nothing in training.

        By Sherman and Morrison's formula, P without the user's row x is P + v v' / (1 - x'v), v = P x.

        Args:
            histories: b non-empty arrays of items; users: [b] numbers, as in Taken.
        """
        weights = recency(histories, len(self.inverse), self.recent, self.decay).tocsr()
        own = self.took[users]
        v = own @ self.inverse
        share = 1 / (1 - np.asarray(own.multiply(v).sum(1)))
        by_history = np.asarray(weights.multiply(v).sum(1)) * share
        diagonal = np.diag(self.inverse) + share * v**2
        scores = weights @ self.inverse + by_history * v
        return (weights.toarray() - scores / diagonal).astype(np.float32)


def inverse(gram):
    """X'X + lambda, which is overwritten -> its inverse."""
    # Of a positive definite matrix, by its Cholesky factor: half the work, and no second matrix.
    factor, failed = lapack.spotrf(gram, lower=True, overwrite_a=True)
    assert not failed, "X'X + lambda is positive definite"
    half, _ = lapack.spotri(factor, lower=True, overwrite_c=True)
    whole = np.tril(half)
    whole += np.tril(whole, -1).T
    return whole
