"""What becomes of items that got the same codes: left so, told apart by one more level, or moved."""

import numpy as np

from pixelrec_train.errors import InputError

POLICIES = ("none", "suffix", "reassign")
ROOMY = 8  # times as many possible ids as items: then there is a free one near almost every item
CANDIDATES = 50  # codes of a level that are tried, nearest first


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


def reassign(codes, order, residual, codebooks, taken=None):
    """Move items whose id is taken to the nearest free one: of the last level, else of the last two.

    Of items with the same codes the first keeps them, and so does an item that shares them with nobody.

    Args:
        codes: [N, L].
        order: item rows, first come first.
        residual: (row, level) -> [D] what is left of its vector before that level.
        codebooks: [L] arrays [K, D].
        taken: [M, L] ids that are given away already, or None.

    Returns:
        ([N, L], items moved, items that fell through: no free id was near, they share theirs)

    Source: spec A.4, after OnePiece's post-processing; at most CANDIDATES codes are tried at each level.
    """
    codes, rows, late, fell_through = codes.copy(), codes.tolist(), [], 0
    used = set() if taken is None else set(map(tuple, taken.tolist()))
    for row in order:
        if tuple(rows[row]) in used:
            late.append(row)
        used.add(tuple(rows[row]))
    for row in late:
        free = nearest_free(rows[row], row, residual, codebooks, used)
        if free is None:
            fell_through += 1
        else:
            codes[row] = free
            used.add(free)
    return codes, len(late) - fell_through, fell_through


def nearest_free(codes, row, residual, codebooks, used):
    """The id nobody has that is nearest to the row's vector, or None."""
    last = len(codes) - 1
    _, found = free_in_last(tuple(codes[:-1]), residual(row, last), codebooks[-1], used)
    if found is not None or last == 0:
        return found
    left, best = residual(row, last - 1), (np.inf, None)
    for code in nearest(left, codebooks[-2]):
        distance, found = free_in_last((*codes[:-2], code), left - codebooks[-2][code], codebooks[-1], used)
        if distance < best[0]:
            best = distance, found
    return best[1]


def free_in_last(prefix, left, codebook, used):
    """(squared distance, id) of the nearest free code behind a prefix; (inf, None) where there is none."""
    for code in nearest(left, codebook):
        if (*prefix, code) not in used:
            return float(((left - codebook[code]) ** 2).sum()), (*prefix, code)
    return np.inf, None


def nearest(vector, codebook):
    """The CANDIDATES codes nearest to [D], equals by number."""
    return np.argsort(((codebook - vector) ** 2).sum(1), kind="stable")[:CANDIDATES].tolist()
