"""Which sample goes where: a sharded sampler with a position that fits in a small dict, and the loader."""

from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from pixelrec_train import distributed
from pixelrec_train.run.signals import ignore_signals


class Slot(NamedTuple):
    """One place in an epoch's order. The samples run out before the last global batch is full."""

    epoch: int
    position: int  # place in the global order of the epoch; seeds what is drawn for this slot
    sample: int  # its number in the data set, or -1 for an empty slot


class ShardedBatches:
    """Every sample exactly once per epoch over all ranks; equal step counts, equal batch sizes.

    The order depends on (seed, epoch) alone, and step t takes the same samples whatever the number of ranks,
    as long as ranks x batch_size stays the same: the slots of a step are dealt to the ranks in turn. Yields
    this rank's slots, so that what a data set costs does not grow with the ranks; or those of all ranks.
    """

    def __init__(self, samples_in, batch_size, seed, of_all_ranks=False):
        """samples_in: epoch -> how many samples it has."""
        self.samples_in, self.seed = samples_in, seed
        self.slots = batch_size * distributed.world_size()
        self.own = slice(None) if of_all_ranks else slice(distributed.rank(), None, distributed.world_size())
        self.epoch, self.batch = 0, 0

    def batches_in(self, epoch):
        """Micro-batches of an epoch, the same on every rank."""
        return -(-self.samples_in(epoch) // self.slots)

    def start_at(self, epoch, batch):
        """The next iteration yields micro-batch `batch` of `epoch`; these two numbers are the whole state."""
        self.epoch, self.batch = epoch, batch

    def __iter__(self):
        samples = self.samples_in(self.epoch)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(samples).tolist()
        for batch in range(self.batch, self.batches_in(self.epoch)):
            positions = range(batch * self.slots, (batch + 1) * self.slots)[self.own]
            yield [Slot(self.epoch, p, order[p] if p < samples else -1) for p in positions]


class Loader:
    """Batches of one epoch after the other, prepared by worker processes that live as long as it does."""

    def __init__(self, dataset, collate, batch_size, seed, num_workers, of_all_ranks=False):
        """
        Args:
            dataset: dataset[Slot] is a sample; an empty slot gives one that is nothing. It has a len(), or
                dataset.samples_in(epoch) where epochs differ.
            collate: samples of a micro-batch -> batch.
            batch_size: samples of this rank in a micro-batch.
            of_all_ranks: collate is given the samples of all ranks: each has to know what the others encode.
        """
        samples_in = getattr(dataset, "samples_in", lambda epoch: len(dataset))
        self.sampler = ShardedBatches(samples_in, batch_size, seed, of_all_ranks)
        self.batches_in = self.sampler.batches_in
        self.loader = DataLoader(
            dataset,
            batch_sampler=self.sampler,
            collate_fn=collate,
            worker_init_fn=ignore_signals,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),  # or each epoch would draw a number from the one dropout uses
            pin_memory=distributed.device().type == "cuda",
        )

    def epoch(self, epoch, skip=0):
        """Micro-batches of one epoch, from number `skip` on."""
        self.sampler.start_at(epoch, skip)
        yield from self.loader
