"""Samples laid end to end in rows of limited room: which samples make a pack. Lengths in, places out."""

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Packs:
    """Pack p holds the pieces first[p] to first[p + 1]."""

    first: np.ndarray  # [P + 1] int64
    sample: np.ndarray  # [n] int32 (int64 from 2^31 samples on): place of the piece's sample in `lengths`
    length: np.ndarray  # [n] int32: tokens of the sample that the pack holds, from its beginning

    def __len__(self):
        return len(self.first) - 1

    def pieces(self, number):
        """(samples, lengths) of one pack."""
        own = slice(*self.first[number : number + 2])
        return self.sample[own], self.length[own]

    def fill(self, room):
        """Share of all packs' room that holds tokens; 1 where there is no pack."""
        return int(self.length.sum(dtype=np.int64)) / (len(self) * room) if len(self) else 1.0


def pack(lengths, room, how="best_fit", cut=False):
    """Every sample in exactly one pack; no pack over its room.

    Args:
        lengths: [N] tokens of each sample, in the order the samples come; each in 1 … room.
        room: tokens of a pack.
        how: "best_fit": the fewest packs. Samples of one length change places with each other from order to
            order, lengths do not. "greedy": one after the other, as OpenOneRec does.
        cut: greedy alone: the sample that overflows a pack is cut to what fits, and its rest is lost.

    Returns:
        Packs, none of them empty. Without a cut, `length` is lengths[sample].

    Raises:
        ValueError: a sample that no pack can hold, an unknown way, or a cut where nothing is cut.
    """
    if how not in ("best_fit", "greedy"):
        raise ValueError(f'samples are packed by "best_fit" or "greedy", not by {how!r}')
    if cut and how != "greedy":
        raise ValueError(f'only "greedy" cuts samples; "{how}" has room for every sample')
    lengths = np.asarray(lengths)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= room:
        raise ValueError(
            f"samples of {lengths.min()} to {lengths.max()} tokens cannot be packed: "
            f"each must have 1 to {room}, the room of a pack"
        )
    lengths = lengths.astype(np.int32, copy=False)
    return best_fit(lengths, room) if how == "best_fit" else greedy(lengths, room, cut)


def greedy(lengths, room, cut):
    """In the order given; a pack ends where the next sample would *reach* its room.

    With a cut that sample is the pack's last. Without, it opens the next pack, so no pack of several samples
    is quite full. The last pack is there however little it holds, which OpenOneRec never emits.

    Source: OpenOneRec, pretrain/onerec_llm/data/qwen3_dataset.py; what its cut_to_pad does.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    found, first = memoryview(ends), [0]  # a memoryview's items are Python's own integers
    while (start := first[-1]) < len(ends):
        before = found[start - 1] if start else 0
        reaching = bisect_left(found, before + room, start, min(start + room, len(ends)))
        first.append(min(reaching + 1, len(ends)) if cut else max(reaching, start + 1))
    first = np.array(first, np.int64)
    kept = lengths.copy()
    if cut and len(ends):
        packed = np.diff(ends[first[1:] - 1], prepend=0)
        kept[first[1:] - 1] -= np.maximum(packed - room, 0).astype(np.int32)
    return Packs(first, np.arange(len(ends), dtype=number_type(len(ends))), kept)


def best_fit(lengths, room):
    """Best-fit decreasing: the longest sample first, each into the fullest pack that still has room for it.

    Samples of one length are interchangeable, so what is packed is the histogram; which sample of a length
    goes where follows the given order. Time and memory grow with the number of samples only where these are
    counted and handed out: 10 million take seconds.

    Source: Krell et al., arXiv:2107.02027 (histogram packing).
    """
    groups = [(packs, *contents_of(layer)) for packs, layer in packed_histogram(np.bincount(lengths), room)]
    packs = np.array([packs for packs, *_ in groups], np.int64)
    pieces = np.array([times.sum() for *_, times in groups], np.int64)
    length, filled = np.empty(len(lengths), np.int32), 0
    for (_, kinds, times), rows, columns in zip(groups, packs, pieces, strict=True):
        block = length[filled : filled + rows * columns].reshape(rows, columns)
        block[:] = np.repeat(kinds, times)
        filled += block.size
    sample = np.empty(len(lengths), number_type(len(lengths)))
    sample[by_length(length, room)] = by_length(lengths, room)
    first = np.concatenate([[0], np.cumsum(np.repeat(pieces, packs), dtype=np.int64)])
    return Packs(first, sample, length)


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


def by_length(lengths, room):
    """Places in ascending order of length, and of place where lengths are equal."""
    # Integers of 16 bits are sorted by radix: five times as fast.
    return np.argsort(lengths.astype(np.uint16 if room < 2**16 else np.int32), kind="stable")


def number_type(count):
    return np.int32 if count < 2**31 else np.int64
