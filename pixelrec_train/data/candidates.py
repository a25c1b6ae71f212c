"""What is known of the items beside a target: untrained recommenders' scores of them, and which are none."""

import numpy as np
import torch

from pixelrec_train.batch import Candidates
from pixelrec_train.untrained.history_sums import mark, scaled


class Beside:
    """Makes Candidates of the windows of a split."""

    def __init__(self, split, scorers, keep_seen):
        """
        Args:
            scorers: K functions of (b histories, [b] their users) -> [b, num_items] scores, that know nothing
                of what these users took in training.
            keep_seen: whether items of a history are candidates like all others.
        """
        self.split, self.scorers, self.keep_seen = split, scorers, keep_seen
        taken = split.taken
        filled = np.flatnonzero(taken.end > taken.start)
        self.stretches = filled[np.argsort(taken.start[filled])]

    def candidates(self, windows, negatives, size):
        """Candidates of the pool.

        Args:
            windows: [b] numbers of windows of the split, -1 for none.
            negatives: [M] items of the pool.
            size: S, positions of a padded window.
        """
        taken, num_items = self.split.taken, len(self.split.train_counts)
        rows = [(row, *self.split.windows[window]) for row, window in enumerate(windows) if window >= 0]
        places = [row * size + np.arange(end - start - 1) for row, start, end in rows]
        histories, users, targets = [], [], []
        for _, start, end in rows:
            stretch = self.stretch_of(start)
            first = taken.start[stretch]
            histories += [taken.items[first:stop] for stop in range(start + 1, end)]
            users += [taken.users[stretch]] * (end - start - 1)
            targets.append(taken.items[start + 1 : end])
        places, targets = (np.concatenate([np.zeros(0, np.int64), *x]) for x in (places, targets))
        left_out = np.zeros((len(places), num_items), bool)
        if not self.keep_seen:
            mark(left_out, histories)
        scorers, users = self.scorers if histories else [], np.array(users)
        offsets = [scaled(score(histories, users), histories, self.keep_seen) for score in scorers]
        offsets = np.array(offsets, np.float32).reshape(-1, len(places), num_items)
        of_target = np.take_along_axis(offsets, targets[None, :, None], axis=2)[:, :, 0]
        left_out[np.arange(len(places)), targets] = True
        made = places, of_target, offsets[:, :, negatives], left_out[:, negatives]
        return Candidates(*map(torch.from_numpy, made))

    def stretch_of(self, start):
        """The stretch of Taken in which a window starts."""
        taken = self.split.taken
        return self.stretches[np.searchsorted(taken.start[self.stretches], start, side="right") - 1]
