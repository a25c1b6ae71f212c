"""From ranked semantic ids to ranked items, and to the places of targets: by items, by ids, and on average.

An id may stand for several items. Three ways to count, side by side:

- items (the default): an id's items follow each other, by popularity in training, then by number.
- ids, as most published figures are made: whoever finds the target's id has found the target. It flatters
  where popular items share ids.
- average: what the first way gives on average when the items of every id are shuffled.
"""

from typing import NamedTuple

import numpy as np
import torch

from pixelrec_train.evaluation.blocks import in_blocks
from pixelrec_train.evaluation.index import drop_seen
from pixelrec_train.evaluation.metrics import figures, gains, target_ranks

WIDTH_STEP = 16  # beams; eval_batch_size users share a block when each has so many


class Places(NamedTuple):
    """Where every user's target stands, 0 = first, max(topk) = absent; [E] each."""

    item: np.ndarray  # in the list of items, for metrics.figures like the places of every other model
    sid: np.ndarray  # of the target's id in the list of ids
    first: np.ndarray  # of the first unseen item of the target's id in the list of items
    size: np.ndarray  # unseen items of the target's id, at least 1


def rank_generated(search, trie, held_out, config, beams):
    """Where every held-out user's target stands, by the rules of retrieval.rank_held_out.

    Items of the whole history are left out of the list unless config.keep_seen; an id leaves the list of ids
    when all of its items are left out. A user's search is so wide that removing them leaves max(topk) items.

    Args:
        search: b histories (arrays of item numbers, oldest first), a number of beams -> [b, K] leaves of the
            trie, best first, such as those of decoding.beam_search; -1 where it found no more.
        trie: of the catalogue, made with the counts of items in training.
        beams: at least so many for every user; more where topk and history ask for them.

    Returns:
        Places, the same on every rank, for any number of ranks; for any eval_batch_size, too, as far as the
        model's scores are.
    """
    histories = [held_out.history(e)[: 0 if config.keep_seen else None] for e in range(len(held_out))]
    widths = beams_needed(histories, max(config.topk), beams, trie.num_leaves)
    found = np.empty((4, len(held_out)), np.int64)
    for width in np.unique(widths):
        group = np.flatnonzero(widths == width)

        def work(numbers, group=group, width=int(width)):
            users = group[numbers]
            leaves = torch.as_tensor(search([held_out.history(e) for e in users], width)).cpu().numpy()
            seen = [np.unique(histories[e]) for e in users]
            return places_of(trie, leaves, seen, held_out.target[users], max(config.topk))

        # Memory is that of all beams of a block: the wider the searches, the fewer users.
        size = max(1, config.eval_batch_size * WIDTH_STEP // int(width))
        parts = in_blocks(len(group), size, work)
        found[:, group] = np.concatenate([np.stack(part) for part in parts], axis=1)
    return Places(*found)


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
        target: [b] item numbers.
    """
    items = target_ranks(expand(trie, leaves, seen, k), target)
    unseen = unseen_items(trie, leaves, seen)  # [b, n]
    before = np.cumsum(unseen, axis=1) - unseen
    ids_before = np.cumsum(unseen > 0, axis=1) - (unseen > 0)
    hit = (leaves == trie.leaf_of[target][:, None]) & (leaves >= 0) & (unseen > 0)
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
    ends = np.cumsum(leaf_sizes(trie, leaves), axis=1)  # [b, n]
    wanted = min(k + max(len(s) for s in seen), int(ends[:, -1].max()))
    row = np.arange(len(leaves))[:, None]
    stride = int(ends.max()) + wanted + 1  # sets the rows apart in one sorted array
    place = np.arange(wanted)
    column = np.searchsorted((ends + row * stride).ravel(), place + row * stride, side="right")
    column = column - row * leaves.shape[1]  # [b, wanted] which leaf an item belongs to
    there = column < leaves.shape[1]
    column = np.minimum(column, leaves.shape[1] - 1)
    leaf = leaves[row, column]
    start = ends[row, column] - np.diff(trie.leaf_ptr)[leaf]
    number = trie.leaf_items[np.where(there, trie.leaf_ptr[leaf] + place - start, 0)]
    return drop_seen(np.where(there, number, -1), seen, k, len(trie.leaf_of))


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


def counted_otherwise(counts, metrics):
    """A sentence with what other_counts found, in percent."""
    by_ids, average = (
        ", ".join(f"{name} {100 * counts[f'{kind}_{name}']:.2f}" for name in metrics)
        for kind in ("sid", "average")
    )
    return f"counting ids, as most papers do: {by_ids}; on average over the items of an id: {average}"
