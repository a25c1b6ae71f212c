"""Which items a window, or a micro-batch, is contrasted with."""

from typing import NamedTuple

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


class Drawn(NamedTuple):
    """Negatives that a micro-batch shares."""

    items: np.ndarray  # [M] item numbers
    log_expected: np.ndarray  # [M] fp32 logarithm of how often a draw holds each; 0 = not corrected


NOTHING_DRAWN = Drawn(np.zeros(0, np.int64), np.zeros(0, np.float32))


class SharedNegatives:
    """Draws of training items for a micro-batch, an item's chance in proportion to count ** power.

    Items stand in a row, each as wide as its chance; the row is cut into as many equal strata as items are
    drawn, and each stratum gives the item at one place of it. So an item is expected exactly draws * chance
    times, and drawing as many as there are, each with the same chance, draws every item once. A draw depends
    on (seed, epoch, position) of the micro-batch's first slot only.
    """

    def __init__(self, train_counts, draws, power, corrected, seed):
        """
        Args:
            train_counts: [num_items]; an item nobody took in training is never drawn.
            draws: M; an item may be drawn more than once.
            power: in [0, 1]; 0 = every item is as likely, 1 = in proportion to its count.
            corrected: whether the loss is told how often each is expected.
        """
        self.candidates = np.flatnonzero(train_counts)
        chance = train_counts[self.candidates].astype(float) ** power
        self.draws, self.seed, self.right_end = draws, seed, chance.cumsum()
        self.log_expected = np.log(chance * (draws / chance.sum()) if corrected else np.ones_like(chance))

    def draw(self, slot):
        """Drawn. slot: the first of the micro-batch."""
        rng = np.random.default_rng([self.seed, slot.epoch, slot.position, 2])
        width = self.right_end[-1] / self.draws
        at = (np.arange(self.draws) + rng.random(self.draws)) * width
        # Rounding may put the last place behind the row's end.
        drawn = self.right_end.searchsorted(at, side="right").clip(max=len(self.candidates) - 1)
        return Drawn(self.candidates[drawn], self.log_expected[drawn].astype(np.float32))


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
