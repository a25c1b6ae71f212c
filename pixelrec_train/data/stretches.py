"""Histories by item number alone, in which every item is learned once; stretches -> SequenceBatch."""

import numpy as np
import torch
from torch.utils.data import Dataset

from pixelrec_train import distributed
from pixelrec_train.batch import SequenceBatch
from pixelrec_train.data.negatives import NOTHING_DRAWN
from pixelrec_train.data.tokens.packs import pack


class StretchDataset(Dataset):
    """dataset[slot] -> (slot, start, end) of a stretch of split.taken.items; start = end in an empty slot."""

    def __init__(self, taken, max_seq_length):
        self.stretches = cut_stretches(taken.start, taken.end, max_seq_length)

    def __len__(self):
        return len(self.stretches)

    def __getitem__(self, slot):
        start, end = self.stretches[slot.sample] if slot.sample >= 0 else (0, 0)
        return slot, start, end


def cut_stretches(start, stop, size):
    """[S] histories -> [N, 2] stretches of at most `size` items, cut from the end.

    One begins with the last item of the one before it, which is a target there and read here: so every item
    but the first is a target once, and no history loses its oldest items.
    """
    steps = size - 1  # targets of a stretch
    count = -(-np.maximum(stop - start - 1, 0) // steps)
    of = np.repeat(np.arange(len(start)), count)
    nth_from_end = np.repeat(np.cumsum(count), count) - 1 - np.arange(len(of))
    end = stop[of] - nth_from_end * steps
    return np.stack([np.maximum(end - size, start[of]), end], axis=1)


class StretchCollator:
    """Makes this rank's SequenceBatch from the stretches of all ranks, rows as wide as its longest."""

    def __init__(self, items, times, negatives=None):
        """
        Args:
            items, times: the flat arrays that stretches point into; times None = not known.
            negatives: SharedNegatives, drawn for a micro-batch, the same for all ranks; None = none.
        """
        self.items, self.times, self.negatives = items, times, negatives
        self.rank, self.ranks = distributed.rank(), distributed.world_size()

    def __call__(self, samples):
        drawn = self.negatives.draw(samples[0][0]) if self.negatives else NOTHING_DRAWN
        return self.collate([(start, end) for _, start, end in samples], drawn)

    def collate(self, stretches, drawn=NOTHING_DRAWN):
        starts, ends = np.array(stretches, np.int64).reshape(-1, 2).T
        steps = np.maximum(ends - starts - 1, 0)  # items read, each with the one behind it as its target
        own = slice(self.rank, None, self.ranks)
        mine = np.flatnonzero(steps[own])
        length, start = steps[own][mine], starts[own][mine]
        packs = pack(length, width := int(length.max(initial=1)))
        length, start = length[packs.sample], start[packs.sample]
        in_row = np.diff(packs.first)  # stretches
        row, opens = np.arange(len(packs)).repeat(in_row), packs.first[:-1].repeat(in_row)
        before = np.cumsum(length) - length
        stretch = np.arange(len(length)).repeat(length)  # of every item that is read
        place = np.arange(len(stretch)) - before[stretch]
        to = row[stretch], (before - before[opens])[stretch] + place

        def laid(values, dtype=np.int64):
            out = np.zeros((max(len(packs), 1), width), dtype)
            out[to] = values
            return torch.from_numpy(out)

        at = start[stretch] + place
        return SequenceBatch(
            items=laid(self.items[at]),
            times=laid(0.0 if self.times is None else self.times[at], np.float64),
            target=laid(self.items[at + 1]),
            place=laid(place),
            history=laid((np.arange(len(length)) - opens + 1)[stretch]),
            negatives=torch.from_numpy(drawn.items),
            log_expected=torch.from_numpy(drawn.log_expected),
            mean_steps=torch.tensor(steps.sum() / self.ranks, dtype=torch.float32),
            num_users=int((ends > starts)[own].sum()),
        )
