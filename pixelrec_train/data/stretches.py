"""Histories by item number alone, in which every item is learned once; stretches -> SequenceBatch."""

import numpy as np
import torch
from torch.utils.data import Dataset

from pixelrec_train import distributed
from pixelrec_train.batch import SequenceBatch


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
    """Makes this rank's SequenceBatch from the stretches of all ranks, as wide as the longest of them."""

    def __init__(self, items, times, candidates, num_negatives, seed):
        """
        Args:
            items, times: the flat arrays that stretches point into; times None = not known.
            candidates: [C] item numbers that negatives are drawn from.
            num_negatives: of a micro-batch, the same for all ranks; 0 = none.
        """
        self.items, self.times, self.candidates = items, times, candidates
        self.num_negatives, self.seed = num_negatives, seed
        self.rank, self.ranks = distributed.rank(), distributed.world_size()

    def __call__(self, samples):
        first = samples[0][0]
        rng = np.random.default_rng([self.seed, first.epoch, first.position, 2])
        drawn = self.candidates[rng.integers(len(self.candidates), size=self.num_negatives)]
        return self.collate([(start, end) for _, start, end in samples], drawn)

    def collate(self, stretches, negatives):
        starts, ends = np.array(stretches, np.int64).reshape(-1, 2).T
        lengths = ends - starts
        place = np.arange(max(int(lengths.max()), 2))
        real = place < lengths[:, None]  # [all B, S + 1]
        mine = slice(self.rank, None, self.ranks)
        at = np.where(real, starts[:, None] + place, 0)[mine]
        real = real[mine]
        times = np.zeros(at.shape) if self.times is None else np.where(real, self.times[at], 0.0)
        return SequenceBatch(
            items=torch.from_numpy(np.where(real, self.items[at], 0).astype(np.int64)),
            times=torch.from_numpy(times),
            valid=torch.from_numpy(real[:, 1:]),
            negatives=torch.from_numpy(negatives.astype(np.int64)),
            mean_steps=torch.tensor(np.maximum(lengths - 1, 0).sum() / self.ranks, dtype=torch.float32),
            num_users=int((lengths[mine] > 0).sum()),
        )
