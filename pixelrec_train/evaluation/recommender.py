"""What can rank: two towers, a language model, a baseline, a blend of them."""

from typing import NamedTuple

import numpy as np
import torch

from pixelrec_train.evaluation.lists import best_first, drop_seen
from pixelrec_train.evaluation.metrics import target_places


class Lists(NamedTuple):
    """The k best items of each user."""

    items: np.ndarray  # [b, k] item numbers, best first; -1 where fewer than k are left
    scores: np.ndarray  # [b, k] fp32; nan where there is no item, or the recommender gives no score


class Found(NamedTuple):
    """What a recommender knows of a block of users."""

    places: np.ndarray  # [b] of the targets in the lists, 0 = first, k = absent
    known: object  # what `counts` wants to know
    lists: Lists | None


class Recommender:
    """Histories -> ranked items. A new one needs `recommend` alone; places.judge asks the rest.

    What may stand in a blend has `score`, too.
    """

    def score(self, histories):
        """[b, num_items] scores, higher is better, of any scale; -inf = it says nothing of an item."""
        raise NotImplementedError

    def recommend(self, histories, left_out, k):
        """The k best items of each user.

        Args:
            histories: b non-empty arrays of item numbers, oldest first.
            left_out: b arrays of item numbers that must not be named.

        Returns:
            [b, k] item numbers, best first, equally good ones by number; -1 where fewer than k are left.
        """
        raise NotImplementedError

    def find(self, histories, left_out, target, k):
        """Found. target: [b] item numbers; one that is not known is -1, and absent."""
        items = self.recommend(histories, left_out, k)
        return Found(target_places(items, target), None, Lists(items, np.full(items.shape, np.nan, "f4")))

    def score_users(self, held_out, users):
        """score, of these users of a HeldOut."""
        return self.score([held_out.history(e) for e in users])

    def find_users(self, held_out, users, left_out, k, wanted):
        """find, of these users of a HeldOut. wanted: [b] bool, whose lists are used."""
        histories = [held_out.history(e) for e in users]
        return self.find(histories, left_out, held_out.target[users], k)

    def counts(self, known, order, topk):
        """{metric: value} besides the figures of the places.

        Args:
            known: what `find` added, of every block.
            order: [E] which of all users, block after block, the held-out user e is; of those who have a
                target.
        """
        return {}

    def groups(self, held_out, ranking):
        """[(numbers of held-out users who may share a block, users per block)]; all of them, as it is."""
        return [(np.arange(len(held_out)), ranking.eval_batch_size)]


class ByScores(Recommender):
    """Ranks by full rows of scores; what is no index of vectors, and any sum of such."""

    def __init__(self, score):
        """score: b histories -> [b, num_items] scores, higher is better; -inf and nan are never named."""
        self.score = score

    def recommend(self, histories, left_out, k):
        return best_scored(self.score(histories), left_out, k).items

    def find(self, histories, left_out, target, k):
        return placed(self.score(histories), left_out, target, k)

    def find_users(self, held_out, users, left_out, k, wanted):
        return placed(self.score_users(held_out, users), left_out, held_out.target[users], k, wanted.any())


def placed(scores, left_out, target, k, wanted=True):
    """Found of [b, num_items] scores; its lists say nothing where none is wanted."""
    if wanted:
        lists = best_scored(scores, left_out, k)
        return Found(target_places(lists.items, target), None, lists)
    nothing = Lists(*(np.broadcast_to(value, (len(target), k)) for value in (-1, np.float32(np.nan))))
    return Found(counted_places(may_be_named(scores, left_out), target, k), None, nothing)


def counted_places(scores, target, k):
    """[b] places of the targets as target_places has them, from how many items stand before each.

    Args:
        scores: [b, num_items]; target: [b] item numbers, -1 where it is not known.
    """
    target, scores = np.asarray(target), scores.numpy()
    own = scores[np.arange(len(target)), np.maximum(target, 0), None]  # [b, 1]
    before = np.count_nonzero(scores > own, axis=1)
    tied = np.count_nonzero(scores == own, axis=1) > 1
    if tied.any():
        earlier = np.arange(scores.shape[1]) < target[tied, None]
        before[tied] += np.count_nonzero((scores[tied] == own[tied]) & earlier, axis=1)
    return np.where((target < 0) | np.isneginf(own[:, 0]), k, np.minimum(before, k))


def may_be_named(scores, left_out):
    """A copy of [b, num_items] scores, a tensor; -inf for what must not be named: it is left out, or nan."""
    scores = np.asarray(scores)
    # Twice the digits tell no two scores of half as many apart, and cost twice the time.
    scores = torch.from_numpy(scores.astype(np.float32 if scores.dtype == np.float32 else np.float64))
    row = np.repeat(np.arange(len(left_out)), [len(items) for items in left_out])
    scores[row, np.concatenate([*left_out, []]).astype(np.int64)] = -torch.inf
    return scores.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def best_scored(scores, left_out, k):
    """Lists of [b, num_items] scores; -inf and nan are never named."""
    scores = may_be_named(scores, left_out)
    best = best_first(scores, k)
    values = scores.gather(1, best)
    named = torch.where(values.isneginf(), -1, best).numpy()
    more = ((0, 0), (0, k - named.shape[1]))
    values = values.masked_fill(values.isneginf(), torch.nan).numpy().astype(np.float32)
    return Lists(np.pad(named, more, constant_values=-1), np.pad(values, more, constant_values=np.nan))


class Popularity(Recommender):
    """What most people took, to everybody."""

    def __init__(self, counts):
        """counts: [num_items] how often each item was taken in training, Taken.counts."""
        self.taken, self.order = counts, np.argsort(-counts, kind="stable")

    def score(self, histories):
        return np.tile(self.taken, (len(histories), 1))

    def recommend(self, histories, left_out, k):
        left_out = [np.unique(items) for items in left_out]
        longest = min(k + max(map(len, left_out)), len(self.order))
        return drop_seen(np.tile(self.order[:longest], (len(left_out), 1)), left_out, k, len(self.order))
