"""What becomes of items that got the same codes: left so, told apart by one more level, or moved."""

from collections import defaultdict

import numpy as np

from pixelrec_train.errors import InputError

POLICIES = ("none", "suffix", "reassign")
ROOMY = 8  # times as many possible ids as items: then there is a free one near almost every item
CANDIDATES = 50  # codes of a level that are tried, nearest first
BLOCK = 4096  # items whose distances are held at a time


def default_policy(num_items, codebook_sizes):
    """reassign where there is room for it, else suffix."""
    possible = np.prod([float(size) for size in codebook_sizes])
    return "reassign" if possible >= ROOMY * num_items else "suffix"


def by_popularity(interactions, num_items):
    """Item rows, most interactions first, equals in their order: who comes first keeps the nearest codes."""
    if interactions is None:
        return np.arange(num_items)
    return np.argsort(-np.asarray(interactions), kind="stable")


def add_suffix(codes, order, taken=None, size=None):
    """One more level for every item: its place among those with the same codes.

    Args:
        codes: [N, L] of new items.
        order: item rows, first come first.
        taken: [M, L + 1] ids that are given away already, or None.
        size: codes of the new level, or None for twice as many as are needed: later items find room.

    Returns:
        ([N, L + 1], codes of the new level)
    """
    following = {}
    for *prefix, place in () if taken is None else taken.tolist():
        following[tuple(prefix)] = max(following.get(tuple(prefix), 0), place + 1)
    suffix = np.zeros(len(codes), np.int32)
    rows = codes.tolist()
    for row in order:
        prefix = tuple(rows[row])
        suffix[row] = following.get(prefix, 0)
        following[prefix] = int(suffix[row]) + 1
    needed = max(following.values(), default=1)
    if size is not None and needed > size:
        raise InputError(
            f"{needed:,} items share their codes, but the last level of the ids that are kept has only "
            f"{size:,}. Build all ids anew, without --codebooks."
        )
    return np.column_stack([codes, suffix]), size or 2 * needed


def reassign(codes, order, vectors, codebooks, taken=None):
    """Move items whose id is taken to the nearest free one: of the last level, else of the last two.

    Of items with the same codes the first keeps them, and so does an item that shares them with nobody.

    Args:
        codes: [N, L].
        order: item rows, first come first.
        vectors: [N, D] what the codebooks quantise.
        codebooks: [L] arrays [K, D].
        taken: [M, L] ids that are given away already, or None.

    Returns:
        ([N, L], items moved, items that fell through: no free id was near, they share theirs)

    Source: spec A.4, after OnePiece's post-processing; at most CANDIDATES codes are tried at each level.
    """
    codes, rows, late, fell_through = codes.copy(), codes.tolist(), [], 0
    used = defaultdict(set)  # prefix -> codes of the last level that are given away behind it
    for *prefix, code in () if taken is None else taken.tolist():
        used[tuple(prefix)].add(code)
    for row in order:
        *prefix, code = rows[row]
        behind = used[tuple(prefix)]
        if code in behind:
            late.append(row)
        behind.add(code)
    *coarse, last = [codebook.astype(np.float64) for codebook in codebooks]
    for start in range(0, len(late), BLOCK):
        block = np.array(late[start : start + BLOCK])
        left = vectors[block].astype(np.float64)
        for level, codebook in enumerate(coarse[:-1]):
            left -= codebook[codes[block, level]]
        before_last = left - coarse[-1][codes[block, -2]] if coarse else left
        for row, before_last_two, candidates in zip(block, left, nearest(before_last, last), strict=True):
            free = first_free(rows[row][:-1], candidates, used)
            if free is None and coarse:
                free = nearest_free(rows[row][:-2], before_last_two, coarse[-1], last, used)
            if free is None:
                fell_through += 1
            else:
                codes[row] = free
                used[free[:-1]].add(free[-1])
    return codes, len(late) - fell_through, fell_through


def first_free(prefix, candidates, used):
    """The id behind a prefix whose last code is the first that nobody has, or None."""
    behind = used[tuple(prefix)]
    return next(((*prefix, code) for code in candidates.tolist() if code not in behind), None)


def nearest_free(prefix, left, codebook, last, used):
    """The id behind a prefix, two levels further, that is nearest to what is left and that nobody has."""
    candidates = nearest(left[None], codebook)[0]
    rest = left - codebook[candidates]
    distances = (rest**2).sum(1)[:, None] - 2 * rest @ last.T + (last**2).sum(1)  # [candidates, K]
    free = distances.copy()
    for place, code in enumerate(candidates.tolist()):
        free[place, list(used[(*prefix, code)])] = np.inf
    best = free.min(1)
    # A code that is free, but behind more than CANDIDATES nearer ones, is not tried.
    best[(distances < best[:, None]).sum(1) >= CANDIDATES] = np.inf
    place = int(best.argmin())
    if best[place] == np.inf:
        return None
    return *prefix, int(candidates[place]), int(free[place].argmin())


def nearest(vectors, codebook):
    """[n, D], [K, D] -> [n, CANDIDATES] numbers of the nearest codes, nearest first, equals by number."""
    distances = (codebook**2).sum(1) - 2 * vectors @ codebook.T  # but for what is the same for every code
    count = min(CANDIDATES, len(codebook))
    found = np.sort(np.argpartition(distances, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(np.take_along_axis(distances, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)
