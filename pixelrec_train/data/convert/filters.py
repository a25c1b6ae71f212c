"""Which interactions are kept, on arrays of numbered users and items."""

import numpy as np

DUPLICATES = ("all", "exact", "first")


def distinct(users, items, times, which):
    """Rows that are left, in their order.

    Args:
        which: "all" = all; "exact" = of equal user, item and time the first row; "first" = of equal user and
            item the earliest, of equally early ones the first row.
    """
    if which == "all":
        return np.arange(len(users))
    order = np.lexsort((times, items, users))  # stable
    same = (users[order][1:] == users[order][:-1]) & (items[order][1:] == items[order][:-1])
    if which == "exact":
        same &= times[order][1:] == times[order][:-1]
    return np.sort(order[np.concatenate([[True], ~same])[: len(order)]])


def k_core(users, items, k):
    """Rows that are left once every user and every item has k rows among them: both are counted, and those
    with fewer go, until none does."""
    rows = np.arange(len(users))
    while len(rows):
        of_user, of_item = users[rows], items[rows]
        enough = (np.bincount(of_user)[of_user] >= k) & (np.bincount(of_item)[of_item] >= k)
        if enough.all():
            break
        rows = rows[enough]
    return rows


def some_users(users, most, seed):
    """Rows of at most so many users, drawn by a seed, with all that they took."""
    there = np.unique(users)
    if len(there) <= most:
        return np.arange(len(users))
    chosen = np.random.default_rng(seed).choice(there, most, replace=False)
    return np.flatnonzero(np.isin(users, chosen))
