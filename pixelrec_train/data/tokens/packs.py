"""Samples laid end to end in rows of limited room: which samples make a pack. Lengths in, places out."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from pixelrec_train.data.tokens.pack_layouts import best_fit, even

LAYOUTS = {"best_fit": best_fit, "even": even}
WAYS = (*LAYOUTS, "greedy")


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
        how: "best_fit": the fewest packs, long samples with long ones and short with short. "even": about one
            pack in a hundred more, each a like mix of long and short. Of both, samples of one length change
            places with each other from order to order, lengths do not. "greedy": one sample after the other,
            as OpenOneRec does.
        cut: greedy alone: the sample that overflows a pack is cut to what fits, and its rest is lost.

    Returns:
        Packs, none of them empty. Without a cut, `length` is lengths[sample].

    Raises:
        ValueError: a sample that no pack can hold, an unknown way, or a cut where nothing is cut.
    """
    if how not in WAYS:
        raise ValueError(f"samples are packed by {', '.join(WAYS)}, not by {how!r}")
    if cut and how != "greedy":
        raise ValueError(f'only "greedy" cuts samples; "{how}" has room for every sample')
    lengths = np.asarray(lengths)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= room:
        raise ValueError(
            f"samples of {lengths.min()} to {lengths.max()} tokens cannot be packed: "
            f"each must have 1 to {room}, the room of a pack"
        )
    lengths = lengths.astype(np.int32, copy=False)
    if how == "greedy":
        return greedy(lengths, room, cut)
    return by_histogram(lengths, room, LAYOUTS[how])


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


def by_histogram(lengths, room, layout):
    """Packs from a layout of the histogram of lengths alone: samples of one length are interchangeable.

    Which of them goes where follows the given order. So 10 million samples take seconds: one by one they are
    only counted and handed out.

    Source: Krell et al., arXiv:2107.02027 (histogram packing).
    """
    first, length = layout(np.bincount(lengths), room)
    sample = np.empty(len(lengths), number_type(len(lengths)))
    sample[by_length(length, room)] = by_length(lengths, room)
    return Packs(first, sample, length)


def by_length(lengths, room):
    """Places in ascending order of length, and of place where lengths are equal."""
    # Integers of 16 bits are sorted by radix: four times as fast.
    return np.argsort(lengths.astype(np.uint16 if room < 2**16 else np.int32), kind="stable")


def number_type(count):
    return np.int32 if count < 2**31 else np.int64
