"""Which items a window is contrasted with."""

import numpy as np

from pixelrec_train.errors import InputError


class NegativeSampler:
    """Uniform draws from the training items, none of them in the window they are drawn for.

    A draw depends on (seed, epoch, position) only: the same for any number of ranks and workers, and
    different in every epoch. Items that occur in no training window are never drawn: they would be
    pushed away without ever being a target, and a cold item is one the model has not met.
    """

    def __init__(self, train_counts, per_window, max_seq_length, seed):
        self.candidates = np.flatnonzero(train_counts)
        self.per_window, self.seed = per_window, seed
        check_candidates(train_counts, max_seq_length)

    def pool(self, samples):
        """[M] those of all windows of a micro-batch. samples: (slot, window, …) each."""
        return np.concatenate([self.draw(slot, window) for slot, window, *_ in samples])

    def draw(self, slot, window):
        rng = np.random.default_rng([self.seed, slot.epoch, slot.position, 1])
        drawn = self.candidates[rng.integers(len(self.candidates), size=self.per_window)]
        while (clash := np.isin(drawn, window)).any():
            drawn[clash] = self.candidates[rng.integers(len(self.candidates), size=clash.sum())]
        return drawn


class EveryItem:
    """In place of draws, every training item once: the loss is a softmax over all of them."""

    def __init__(self, train_counts):
        self.candidates = np.flatnonzero(train_counts)

    def pool(self, samples):
        return self.candidates


def check_candidates(train_counts, max_seq_length):
    """Raises InputError where a window may hold every training item."""
    candidates = np.count_nonzero(train_counts)
    if candidates <= max_seq_length:
        raise InputError(
            f"only {candidates} items occur in training: too few to draw negatives that are "
            f"not in a window of {max_seq_length}. Lower --max_seq_length or bring more data."
        )
