"""Training windows as a data set; windows and negatives -> TwoTowerBatch."""

from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from pixelrec_train import distributed
from pixelrec_train.batch import TwoTowerBatch
from pixelrec_train.clock import padded_clock
from pixelrec_train.data.shares import Shares


class HistoryDataset(Dataset):
    """dataset[slot] -> (slot, [n] item numbers of its window, oldest first; none for an empty slot, [n] their
    times or None)."""

    def __init__(self, split, with_times=False):
        self.items, self.windows = split.taken.items, split.windows
        self.times = split.taken.times if with_times else None

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, slot):
        start, end = self.windows[slot.sample] if slot.sample >= 0 else (0, 0)
        times = None if self.times is None else np.asarray(self.times[start:end])
        return slot, np.asarray(self.items[start:end]), times


class TwoTowerCollator:
    """Makes this rank's batch from the windows and negatives of all ranks.

    Each distinct item of them all is encoded by one rank. Where no item LLM reads (texts are unread), a rank
    brings every item it looks at itself: looking up is cheaper than exchanging.
    """

    def __init__(self, item_text, sampler, max_seq_length, chunks=(0, None), beside=None):
        """
        Args:
            chunks: of TowerFlags.
            beside: candidates.Beside, which says more of negatives than their numbers; None = nothing is.
        """
        self.item_text, self.sampler, self.max_seq_length = item_text, sampler, max_seq_length
        self.chunks, self.beside = chunks, beside
        self.rank, self.ranks = distributed.rank(), distributed.world_size()

    def __call__(self, samples):
        negatives = self.sampler.pool(samples)
        windows, times = [window for _, window, _ in samples], [times for *_, times in samples]
        batch = self.collate(windows, negatives, None if times[0] is None else times)
        if self.beside is None:
            return batch
        mine = [slot.sample for slot, *_ in samples[self.rank :: self.ranks]]
        return replace(batch, candidates=self.beside.candidates(mine, negatives, self.max_seq_length - 1))

    def collate(self, windows, negatives, times=None):
        """Item numbers of all ranks' windows, dealt to them in turn, and of the pool -> TwoTowerBatch.

        times: of the windows' items, where the user LLM reads them.
        """
        mine = windows[self.rank :: self.ranks]
        distinct = np.unique(np.concatenate([*(windows if self.item_text.is_read else mine), negatives]))
        if not len(distinct):
            distinct = np.zeros(1, np.int64)  # padding has to point somewhere
        shares = self.shares(distinct)
        lengths = np.array([len(window) for window in mine])
        real = np.arange(self.max_seq_length) < lengths[:, None]  # [B, S + 1]
        padded = np.zeros(real.shape, np.int64)
        padded[real] = shares.place[np.searchsorted(distinct, np.concatenate(mine))]
        steps = sum(max(len(window) - 1, 0) for window in windows)
        return TwoTowerBatch(
            items=self.item_text.items(shares.mine),
            rows=shares.rows,
            chunks=self.chunks_of(int(shares.tokens.max())),
            window=torch.from_numpy(padded),
            valid=torch.from_numpy(real[:, 1:]),
            negatives=torch.from_numpy(shares.place[np.searchsorted(distinct, negatives)]),
            mean_steps=torch.tensor(steps / self.ranks),
            num_users=int((lengths > 0).sum()),
            token_imbalance=float(shares.tokens.max() / max(shares.tokens.mean(), 1)),
            clock=None if times is None else self.clock(times[self.rank :: self.ranks]),
        )

    def clock(self, times):
        """[B, S, 5] of the items that are read; the newest of a window is its last target."""
        return torch.from_numpy(padded_clock([of_one[:-1] for of_one in times], self.max_seq_length - 1))

    def chunks_of(self, tokens):
        """Parts in which every rank reads its texts. tokens: of the rank that has most."""
        at_once, of_one = self.chunks
        return 1 if of_one is None or tokens <= at_once else max(1, -(-tokens // of_one))

    def shares(self, distinct):
        tokens = self.item_text.lengths_of(distinct)
        if self.item_text.is_read:
            return Shares.plan(distinct, tokens, self.rank, self.ranks)
        return Shares(distinct, np.arange(len(distinct)), 0, tokens.sum(keepdims=True))
