"""From ranked semantic ids to ranked items, and to the places of targets: by items, by ids, and on average.

An id may stand for several items. Three ways to count, side by side:

- items (the default): an id's items follow each other, by popularity in training, then by number.
- ids, as most published figures are made: whoever finds the target's id has found the target. It flatters
  where popular items share ids.
- average: what the first way gives on average when the items of every id are shuffled.
"""

from typing import NamedTuple

import numpy as np

from pixelrec_train.evaluation.lists import drop_seen, looked_up, members
from pixelrec_train.evaluation.metrics import figures, gains, target_places
from pixelrec_train.evaluation.recommender import Found, Lists, Recommender

WIDTH_STEP = 16  # beams; eval_batch_size users share a block when each has so many
BEAMS_AT_ONCE = 256 * WIDTH_STEP  # of a block's searches for full rows of scores


class Places(NamedTuple):
    """Where targets stand, 0 = first, k = absent; [b] each."""

    item: np.ndarray  # in the list of items, like the places of every other model
    sid: np.ndarray  # of the target's id in the list of ids
    first: np.ndarray  # of the first unseen item of the target's id in the list of items
    size: np.ndarray  # unseen items of the target's id, at least 1


class Generated(Recommender):
    """Items by their semantic ids, as a search through the trie of the catalogue ranks them.

    A user's search is so wide that what is left out leaves k items of the list; an id leaves the list of ids
    when all of its items are left out.
    """

    def __init__(self, search, trie, beams):
        """
        Args:
            search: b histories (arrays of item numbers, oldest first), a number of beams -> [b, K] leaves of
                the trie, best first, -1 where it found no more, and [b, K] their log-probabilities, on the
                CPU; such as those of decoding.beam_search.
            trie: of the catalogue, made with the counts of items in training.
            beams: at least so many for every user; more where k and what is left out ask for them.
        """
        self.search, self.trie, self.beams = search, trie, beams

    def recommend(self, histories, left_out, k):
        left_out, lists = [np.unique(x) for x in left_out], np.empty((len(histories), k), np.int64)
        for rows, width in self.by_width(left_out, k):
            leaves, _ = self.leaves([histories[row] for row in rows], width)
            lists[rows] = expand(self.trie, leaves, [left_out[row] for row in rows], k)
        return lists

    def score(self, histories):
        """[b, num_items] log-probability of an item's id; -inf of those that no beam has found.

        So wide is a search that --num_beams ids are left when the history's are left out.
        """
        scores = np.full((len(histories), len(self.trie.leaf_of)), -np.inf, np.float32)
        for rows, width in self.by_width(histories, self.beams):
            at_once = max(1, BEAMS_AT_ONCE // width)
            for some in np.split(rows, range(at_once, len(rows), at_once)):
                leaves, values = self.leaves([histories[row] for row in some], width)
                of_leaves = np.full(
                    (len(some), self.trie.num_leaves + 1), -np.inf, np.float32
                )  # -1: the last
                np.put_along_axis(of_leaves, leaves, np.where(leaves < 0, -np.inf, values), axis=1)
                scores[some] = of_leaves[:, self.trie.leaf_of]
        return scores

    def find(self, histories, left_out, target, k):
        """Found, which knows Places; all searches must be equally wide, see groups."""
        found, _ = self.found(histories, left_out, target, k)
        return found

    def found(self, asked, left_out, target, k):
        """(Found, [b, n] leaves). asked: b of what the search takes."""
        left_out = [np.unique(x) for x in left_out]
        ((_, width),) = self.by_width(left_out, k)
        leaves, scores = self.leaves(asked, width)
        places = places_of(self.trie, leaves, left_out, target, k)
        items = expand(self.trie, leaves, left_out, k)
        of_items = looked_up(np.where(items >= 0, self.trie.leaf_of[items], -1), leaves, scores)
        return Found(places.item, places, Lists(items, of_items)), leaves

    def counts(self, known, order, topk):
        return other_counts(Places(*(np.concatenate(part)[order] for part in zip(*known, strict=True))), topk)

    def groups(self, held_out, ranking):
        """Users whose searches are equally wide, as many as have the memory of all their beams."""
        histories = [held_out.history(e)[: 0 if ranking.keep_seen else None] for e in range(len(held_out))]
        return [
            (users, max(1, ranking.eval_batch_size * WIDTH_STEP // width))
            for users, width in self.by_width(histories, max(ranking.topk))
        ]

    def by_width(self, left_out, k):
        """[(numbers of users, beams that each of them needs)]"""
        widths = beams_needed(left_out, k, self.beams, self.trie.num_leaves)
        return [(np.flatnonzero(widths == width), int(width)) for width in np.unique(widths)]

    def leaves(self, histories, width):
        """[b, n] leaves, and [b, n] their scores."""
        leaves, scores = self.search(histories, width)
        return np.asarray(leaves), np.asarray(scores, np.float32)


def beams_needed(histories, k, beams, num_leaves):
    """[E] beams of each user: k + the items to leave out, rounded up to have few widths; at least `beams`.

    It depends on nothing but the user's own history: who shares a block must not change a user's list.
    """
    needed = np.array([k + len(np.unique(history)) for history in histories], np.int64)
    needed = np.maximum(needed, beams)
    return np.minimum(-(-needed // WIDTH_STEP) * WIDTH_STEP, num_leaves)


def places_of(trie, leaves, seen, target, k):
    """Places of b users' targets; absent is k. A target that is left out itself is, its id need not be.

    Args:
        leaves: [b, n] of the trie, best first, -1 where a list ran out.
        seen: b arrays of different item numbers, those to leave out.
        target: [b] item numbers; -1 where it is not known, and so absent.
    """
    items = target_places(expand(trie, leaves, seen, k), target)
    unseen = unseen_items(trie, leaves, seen)  # [b, n]
    before = np.cumsum(unseen, axis=1) - unseen
    ids_before = np.cumsum(unseen > 0, axis=1) - (unseen > 0)
    hit = (leaves == trie.leaf_of[target][:, None]) & (leaves >= 0) & (unseen > 0) & (target >= 0)[:, None]
    found, column = hit.any(1), hit.argmax(1)
    rows = np.arange(len(leaves))
    is_seen = np.array([t in s for t, s in zip(target, seen, strict=True)], bool)
    return Places(
        items,
        np.where(found, np.minimum(ids_before[rows, column], k), k),
        np.where(found & ~is_seen, np.minimum(before[rows, column], k), k),
        np.where(found, unseen[rows, column], 1),
    )


def expand(trie, leaves, seen, k):
    """The k best items of each user that the user has not seen.

    Args:
        leaves: [b, n] of the trie, best first, -1 where a list ran out.
        seen: b arrays of different item numbers, those to leave out.

    Returns:
        [b, k] item numbers: those of the first leaf by popularity, those of the second, …; -1 where fewer
        than k items are left.
    """
    wanted = min(k + max(len(s) for s in seen), int(leaf_sizes(trie, leaves).sum(1).max()))
    items, _ = members(leaves, trie.leaf_ptr, trie.leaf_items, wanted)
    return drop_seen(items, seen, k, len(trie.leaf_of))


def leaf_sizes(trie, leaves):
    """[b, n] items of each leaf; 0 where there is none."""
    return np.where(leaves >= 0, np.diff(trie.leaf_ptr)[leaves], 0)


def unseen_items(trie, leaves, seen):
    """[b, n] items of each leaf that the user has not seen."""
    row = np.repeat(np.arange(len(seen)), [len(s) for s in seen])
    seen_leaf = trie.leaf_of[np.concatenate(seen).astype(np.int64)]
    keys, counts = np.unique((row * trie.num_leaves + seen_leaf)[seen_leaf >= 0], return_counts=True)
    wanted = np.arange(len(leaves))[:, None] * trie.num_leaves + leaves
    if not len(keys):
        return leaf_sizes(trie, leaves)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return leaf_sizes(trie, leaves) - np.where((keys[at] == wanted) & (leaves >= 0), counts[at], 0)


def expected_figures(first, size, topk):
    """Figures when a target's place is any of first, …, first + size - 1, each as likely; see metrics.gains.

    Args:
        first, size: [E] of Places.
    """
    k, values = max(topk), {}
    low, high = np.minimum(first, k), np.minimum(first + size, k)
    for name, gain in gains(topk).items():
        total = np.concatenate([[0.0], np.cumsum(gain)])  # [k + 2] of the places before
        values[name] = float(np.mean((total[high] - total[low]) / size)) if len(first) else 0.0
    return values


def other_counts(places, topk):
    """{"sid_recall@5": by ids, …, "average_recall@5": on average, …}, beside figures(places.item, topk)."""
    by_ids, average = figures(places.sid, topk), expected_figures(places.first, places.size, topk)
    return {f"sid_{name}": value for name, value in by_ids.items()} | {
        f"average_{name}": value for name, value in average.items()
    }


def counted_otherwise(counts, topk):
    """A sentence with what other_counts found, in percent, at 10 (or the largest cut-off)."""
    k = 10 if 10 in topk else max(topk)
    by_ids, average = (
        ", ".join(f"{name} {100 * counts[f'{kind}_{name}']:.2f}" for name in (f"recall@{k}", f"ndcg@{k}"))
        for kind in ("sid", "average")
    )
    return f"counting ids, as most papers do: {by_ids}; on average over the items of an id: {average}"
