"""Blends: the scores of several recommenders, each row on one scale, times the weight of its part, added."""

import numpy as np
import torch

from pixelrec_train.evaluation.recommender import Recommender, best_scored, placed
from pixelrec_train.evaluation.retrieval import TwoTower

SCALING = "standard scores of the items that may be named"


def standardised(scores, left_out):
    """[b, num_items] scores -> fp32 of mean 0 and deviation 1 over the items of a row that are not left out.

    -inf and nan, items of which a part says nothing, count as the least score of their row; a row of equals
    is 0.
    """
    scores = np.array(scores, np.float32)
    may = np.ones(scores.shape, bool)
    for row, items in enumerate(left_out):
        may[row, items] = False
    finite = np.isfinite(scores)
    least = np.where(finite, scores, np.inf).min(1, keepdims=True)
    scores = np.where(finite, scores, np.where(np.isfinite(least), least, 0))
    mean, deviation = moments(scores, may)
    return np.where(deviation > 0, (scores - mean) / np.where(deviation > 0, deviation, 1), 0)


def moments(scores, may):
    """[b, 1] mean and deviation of each row where it `may` be named; deviations that are rounding are 0."""
    count = np.maximum(may.sum(1, keepdims=True), 1)
    mean = np.where(may, scores, 0).sum(1, keepdims=True, dtype=np.float64) / count
    variance = np.square(np.where(may, scores - mean, 0)).sum(1, keepdims=True, dtype=np.float64) / count
    deviation = np.sqrt(variance)
    deviation[deviation <= 1e-6 * np.abs(scores).max(1, keepdims=True)] = 0
    return mean.astype(np.float32), deviation.astype(np.float32)


class Blend(Recommender):
    """Ranks by the weighted sum of its parts' standardised scores."""

    def __init__(self, parts, weights, halves=None):
        """
        Args:
            parts: {name: Recommender} with `score`.
            weights: [P] of the parts, in their order, at least 0.
            halves: [2, P] those chosen on the users of `half_of` 0 and of 1, where the very users are ranked
                that weights were chosen on: each half by those of the other.
        """
        self.parts, self.weights = parts, np.asarray(weights, np.float32)
        self.halves = None if halves is None else np.asarray(halves, np.float32)

    def rows(self, score, left_out):
        """[P, b, num_items] of `standardised`, and [b, num_items] bool of what may be ranked; None = all.

        score: a part -> its [b, num_items] scores
        """
        scores = [score(part) for part in self.parts.values()]
        return np.stack([standardised(rows, left_out) for rows in scores]), self.retrieved(scores)

    def retrieved(self, scores):
        return None

    def joined(self, score, left_out, weights=None):
        """[b, num_items] scores; -inf of what is not to be ranked. weights: [P, b]; None = self.weights."""
        rows, retrieved = self.rows(score, left_out)
        if weights is None:
            weights = np.tile(self.weights[:, None], len(left_out))
        total = np.einsum("pb,pbn->bn", weights, rows)
        return total if retrieved is None else np.where(retrieved, total, -np.inf)

    def score(self, histories):
        return self.joined(lambda part: part.score(histories), [[]] * len(histories))

    def recommend(self, histories, left_out, k):
        return best_scored(self.joined(lambda part: part.score(histories), left_out), left_out, k).items

    def find(self, histories, left_out, target, k):
        return placed(self.joined(lambda part: part.score(histories), left_out), left_out, target, k)

    def find_users(self, held_out, users, left_out, k, wanted):
        weights = None if self.halves is None else self.halves[1 - half_of(held_out.users[users])].T
        scores = self.joined(lambda part: part.score_users(held_out, users), left_out, weights)
        return placed(scores, left_out, held_out.target[users], k, wanted.any())


class Hybrid(Blend):
    """A blend that ranks what its first part names, and the items that part cannot name: those never taken.

    Source: LIGER (arXiv:2411.18814): a generative model retrieves, vectors rank.
    """

    def __init__(self, parts, weights, halves=None, *, always):
        """always: [num_items] bool of items that are ranked in any case."""
        super().__init__(parts, weights, halves)
        self.always = always

    def retrieved(self, scores):
        return np.isfinite(scores[0]) | self.always


def half_of(users):
    """[E] 0 or 1 of numbers of users; one user's rows are of one half."""
    return np.asarray(users) % 2


def end_to_end(vectors, weights, keep_seen, retrieval):
    """A blend of vector models as one: a TwoTower by inner product, whose lists are those of the blend.

    An item's vector is those of the parts, end to end; a user's too, each times its weight and divided by the
    deviation of its scores. (That a row's mean is 0 moves all items alike and orders none.)

    Args:
        vectors: TwoTowers.
        weights: [P]
        keep_seen: whether items of the history count to the deviation, as the blend leaves none out.
    """
    catalogue = np.concatenate([part.items for part in vectors], axis=1)

    def encode(histories, times=None):
        may = np.ones((len(histories), len(catalogue)), bool)
        for row, items in enumerate(() if keep_seen else histories):
            may[row, items] = False
        joined = []
        for part, weight in zip(vectors, weights, strict=True):
            users = part.users(histories, times)
            _, deviation = moments(users @ part.items.T, may)
            scale = np.where(deviation > 0, weight / np.where(deviation > 0, deviation, 1), 0)
            joined.append(users * scale.astype(np.float32))
        return torch.from_numpy(np.concatenate(joined, axis=1))

    return TwoTower(encode, catalogue, retrieval, cosines=False)
