"""How the weights of a blend are chosen: by validation ndcg@10, part after part from a small grid."""

from typing import NamedTuple

import numpy as np

from pixelrec_train.evaluation.blend import half_of
from pixelrec_train.evaluation.blocks import in_blocks
from pixelrec_train.evaluation.metrics import figures
from pixelrec_train.evaluation.places import with_targets

GRID = (*(n / 10 for n in range(11)), *(10 / n for n in range(9, 0, -1)))  # times the largest of the others
CANDIDATES = 100  # best items of every part that a user's target is compared with
MOST_USERS = 10_000  # drawn of validation where it has more
TOPK = (10,)
NO_CANDIDATE = -1e9  # finite, so that a weight of 0 makes no nan of it


class Fitted(NamedTuple):
    weights: list[float]  # [P] chosen on all users of validation
    halves: list  # [2, P] chosen on the users of either half
    figures: (
        dict  # {"recall@10": …, "ndcg@10": …} on validation, each half ranked by the weights of the other
    )
    users: int


def fit(blend, held_out, ranking, starts, seed=0):
    """Fitted, on a HeldOut to validate; the same on every rank.

    Args:
        blend: Blend, of any weights.
        ranking: RankingFlags.
        starts: [P] weights each that the search begins with; the best end of all counts.
    """
    held_out = with_targets(held_out)
    if len(held_out) > MOST_USERS:
        held_out = held_out.sample(MOST_USERS, seed)
    pool = Pool.of(blend, held_out, ranking)
    half = half_of(held_out.users)
    halves = [chosen(pool, np.flatnonzero(half == h), starts) for h in (0, 1)]
    places = np.empty(len(held_out), np.int64)
    for h in (0, 1):
        rows = np.flatnonzero(half == h)
        places[rows] = pool.places(halves[1 - h], rows)
    return Fitted(
        chosen(pool, np.arange(len(held_out)), starts), halves, figures(places, TOPK), len(held_out)
    )


def chosen(pool, users, starts):
    """[P] weights with the best ndcg@10 of these users, the largest 1: coordinate ascent from each start."""
    ends = [ascent(pool, users, list(start)) for start in starts]
    _, weights = max(ends, key=lambda end: end[0])  # of equals the first
    return [round(weight / max(weights), 4) for weight in weights]


def ascent(pool, users, weights):
    """(ndcg@10, weights) where no single part's weight of GRID is better any more."""
    best, before = pool.ndcg(weights, users), None
    while weights != before:
        before = list(weights)
        for part in range(len(weights)):
            others = [*weights[:part], *weights[part + 1 :]]
            for share in GRID if any(others) else ():
                tried = [*weights[:part], share * max(others), *weights[part + 1 :]]
                if (value := pool.ndcg(tried, users)) > best:
                    best, weights = value, tried
    return best, weights


class Pool(NamedTuple):
    """Every user's CANDIDATES best items of every part, and the target: enough to place it among the first.

    A target that no part has among its best is absent.
    """

    values: np.ndarray  # [E, C, P] fp32 standardised scores; NO_CANDIDATE where a user has fewer
    items: np.ndarray  # [E, C] their numbers
    target: np.ndarray  # [E] the column of the target; -1 = absent

    @staticmethod
    def of(blend, held_out, ranking, candidates=CANDIDATES):
        """All ranks call it."""

        def work(users):
            histories = [held_out.history(e) for e in users]
            left_out = histories if not ranking.keep_seen else [h[:0] for h in histories]
            rows, retrieved = blend.rows(lambda part: part.score_users(held_out, users), left_out)
            if retrieved is not None:
                rows[:, ~retrieved] = -np.inf
            return candidates_of(rows, left_out, held_out.target[users], candidates)

        found = in_blocks(len(held_out), ranking.eval_batch_size, work)
        return Pool(*(np.concatenate(part) for part in zip(*found, strict=True)))

    def places(self, weights, users):
        """[e] of these users' targets under these weights; 10 = not among the first."""
        scores = self.values[users] @ np.asarray(weights, np.float32)  # [e, C]
        items, column = self.items[users], self.target[users]
        row = np.arange(len(users))
        own, number = scores[row, column][:, None], items[row, column][:, None]
        before = (scores > own).sum(1) + ((scores == own) & (items < number)).sum(1)
        return np.where(column < 0, max(TOPK), np.minimum(before, max(TOPK)))

    def ndcg(self, weights, users):
        return figures(self.places(weights, users), TOPK)["ndcg@10"]


def candidates_of(rows, left_out, target, count):
    """(values [b, P * count, P], items [b, P * count], target [b]) of Pool.

    rows: [P, b, num_items] standardised scores; -inf of what is not to be ranked
    """
    parts, users, num_items = rows.shape
    width = min(parts * count, num_items)
    is_candidate = np.zeros((users, num_items), bool)
    for row, items in enumerate(left_out):
        rows[:, row, items] = -np.inf
    for part in rows:
        best = np.argpartition(-part, min(count, num_items) - 1, axis=1)[:, :count]
        np.put_along_axis(is_candidate, best, True, axis=1)
    is_candidate &= np.isfinite(rows[0])  # without what is left out
    items = np.argsort(~is_candidate, axis=1, kind="stable")[:, :width]  # candidates first, by number
    there = np.take_along_axis(is_candidate, items, axis=1)
    values = np.take_along_axis(rows, items[None], axis=2).transpose(1, 2, 0)
    values = np.where(there[:, :, None], values, NO_CANDIDATE)
    hit = (items == target[:, None]) & there
    return values.astype(np.float32), items.astype(np.int32), np.where(hit.any(1), hit.argmax(1), -1)
