"""Packs of a histogram of lengths: how many samples of which lengths each pack holds. Counts in, lengths out.

A layout is ([P + 1] int64, [n] int32): the lengths of pack p are those from the p-th to the next place.
"""

import heapq
from bisect import bisect_left, insort
from collections import defaultdict

import numpy as np


def best_fit(counts, room):
    """Best-fit decreasing: the longest sample first, each into the fullest pack that still has room for it.

    Args:
        counts: [longest + 1] samples of each length; none of length 0, none longer than the room.

    Source: Krell et al., arXiv:2107.02027 (histogram packing).
    """
    groups = [(packs, *contents_of(layer)) for packs, layer in packed_histogram(counts, room)]
    packs = np.array([packs for packs, *_ in groups], np.int64)
    pieces = np.array([times.sum() for *_, times in groups], np.int64)
    length, filled = np.empty(counts.sum(), np.int32), 0
    for (_, kinds, times), rows, columns in zip(groups, packs, pieces, strict=True):
        block = length[filled : filled + rows * columns].reshape(rows, columns)
        block[:] = np.repeat(kinds, times)
        filled += block.size
    return np.concatenate([[0], np.cumsum(np.repeat(pieces, packs), dtype=np.int64)]), length


def even(counts, room):
    """The longest sample first, each into the emptiest of as few packs as could hold all tokens.

    Where none has room for it, one pack more is opened. Packs end equally full, of like lengths: none holds
    the short samples of one source alone, and ranks compute about equally long.

    Args:
        counts: [longest + 1] samples of each length; none of length 0, none longer than the room.

    Source: Graham, SIAM J. Appl. Math. 1969 (longest processing time first), on the histogram.
    """
    lengths = np.flatnonzero(counts)[::-1]
    num_packs = -(-int((counts * np.arange(len(counts))).sum()) // room)
    spaces, emptiest = {room: [np.arange(num_packs, dtype=np.int32)]}, [-room]  # space left -> its packs
    taken = []

    def put(packs, space):
        if space not in spaces:
            heapq.heappush(emptiest, -space)
            spaces[space] = []
        spaces[space].append(packs)

    for length in lengths.tolist():
        left = int(counts[length])
        while left:
            space = -emptiest[0]
            if space < length:
                put(np.array([num_packs], np.int32), room)
                num_packs += 1
                continue
            packs = spaces[space].pop()
            if not spaces[space]:
                del spaces[space]
                heapq.heappop(emptiest)
            if len(packs) > left:
                put(packs[left:], space)
                packs = packs[:left]
            left -= len(packs)
            taken.append(packs)
            put(packs, space - length)
    pack_of = np.concatenate([np.zeros(0, np.int32), *taken])  # [n] of the samples, longest first
    length = np.repeat(lengths, counts[lengths]).astype(np.int32)[np.argsort(pack_of, kind="stable")]
    return np.concatenate([[0], np.cumsum(np.bincount(pack_of, minlength=num_packs))]), length


def packed_histogram(counts, room):
    """counts[l] samples of length l -> [(number of equal packs, their contents)].

    Contents are linked layers (below, length, samples of that length in each pack), so that a group of equal
    packs splits without copying.
    """
    open_groups, spaces = defaultdict(list), []  # space left -> its groups; the spaces there are, ascending

    def put(packs, space, contents):
        if space not in open_groups:
            insort(spaces, space)
        open_groups[space].append((packs, contents))

    def take(least):
        """The group with the least space of at least `least`."""
        place = bisect_left(spaces, least)
        space = spaces[place]
        packs, contents = open_groups[space].pop()
        if not open_groups[space]:
            del open_groups[space], spaces[place]
        return packs, space, contents

    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            if not spaces or spaces[-1] < length:
                put(-(-left // (room // length)), room, None)  # as many new packs as these samples need
            packs, space, contents = take(length)
            # A pack that takes one is the fullest with room for the next as well, until it has none.
            each = space // length
            full = min(packs, left // each)
            left -= full * each
            if full:
                put(full, space - each * length, (contents, length, each))
            if left and full < packs:
                put(1, space - left * length, (contents, length, left))
                full, left = full + 1, 0
            if full < packs:
                put(packs - full, space, contents)
    return [group for space in spaces for group in open_groups[space]]


def contents_of(layer):
    """Linked layers -> ([k] lengths, longest first, [k] samples of each)."""
    found = []
    while layer:
        layer, length, samples = layer
        found.append((length, samples))
    lengths, samples = zip(*reversed(found), strict=True)
    return np.array(lengths, np.int32), np.array(samples, np.int64)
