"""Ranked lists: the best of scores, items of groups, seen items dropped."""

import numpy as np


def best_first(scores, k):
    """[b, n] scores -> [b, min(k, n)] columns of the largest, best first, equal scores by column.

    A stable sort says the same, but sorts all n; topk leaves open which of equals it takes, and their order.
    """
    if scores.shape[1] <= k:
        return scores.sort(dim=1, descending=True, stable=True).indices
    values, columns = scores.topk(k + 1, dim=1)
    columns = columns[:, :k].sort(dim=1).values
    order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices
    best = columns.gather(1, order)
    cut = values[:, k - 1] == values[:, k]  # equals on both sides: these rows, rarely any, are sorted
    if cut.any():
        best[cut] = scores[cut].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return best


def members(groups, ptr, items, wanted):
    """The first items of groups that follow each other.

    Args:
        groups: [b, n] numbers of groups, best first, -1 where a row ran out.
        ptr, items: items[ptr[g] : ptr[g + 1]] belong to group g.

    Returns:
        [b, wanted] items, -1 where they run out, and [b, wanted] the column of `groups` each comes from.
    """
    sizes = np.where(groups >= 0, np.diff(ptr)[groups], 0)
    ends, row = np.cumsum(sizes, axis=1), np.arange(len(groups))[:, None]
    stride = int(ends.max()) + wanted + 1  # sets the rows apart in one sorted array
    place = np.arange(wanted)
    column = np.searchsorted((ends + row * stride).ravel(), (place + row * stride).ravel(), side="right")
    column = column.reshape(len(groups), wanted) - row * groups.shape[1]
    there = column < groups.shape[1]
    column = np.minimum(column, groups.shape[1] - 1)
    start = ends[row, column] - sizes[row, column]
    number = items[np.where(there, ptr[groups[row, column]] + place - start, 0)]
    return np.where(there, number, -1), column


def looked_up(wanted, numbers, scores):
    """[b, k] fp32 the score that each wanted number has; nan for -1.

    Args:
        wanted: [b, k] numbers, of which the same row of `numbers` holds each once.
        numbers, scores: [b, n]
    """
    order = np.argsort(numbers, axis=1, kind="stable")
    row = np.arange(len(numbers))[:, None]
    stride = int(max(numbers.max(initial=0), wanted.max(initial=0))) + 2  # sets the rows apart
    keys = (np.take_along_axis(numbers, order, axis=1) + 1 + row * stride).ravel()
    place = np.searchsorted(keys, (wanted + 1 + row * stride).ravel()) % max(numbers.shape[1], 1)
    column = np.take_along_axis(order, place.reshape(wanted.shape), axis=1)
    found = np.take_along_axis(np.asarray(scores, np.float32), column, axis=1)
    return np.where(wanted >= 0, found, np.float32(np.nan))


def drop_seen(numbers, seen, k, num_items):
    """[b, n] ranked item numbers -> [b, k] the first k that are not in the row's seen items, then -1."""
    row = np.arange(len(numbers))[:, None] * num_items
    keep = ~np.isin(numbers + row, keys_of(seen, num_items))
    first = np.argsort(~keep, axis=1, kind="stable")[:, :k]  # kept ones in front, order unchanged
    best = np.take_along_axis(np.where(keep, numbers, -1), first, axis=1)
    return np.pad(best, ((0, 0), (0, k - best.shape[1])), constant_values=-1)


def keys_of(seen, num_items):
    """[n] a number for each item of each row, which no other row has: row * num_items + item."""
    row = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
    return row * num_items + np.concatenate(seen).astype(np.int64)
