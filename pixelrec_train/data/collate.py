"""Windows and negatives -> TwoTowerBatch."""

import numpy as np
import torch

from pixelrec_train.batch import TwoTowerBatch


class TwoTowerCollator:
    """Puts each distinct item of the micro-batch into it once, and indices everywhere else."""

    def __init__(self, item_text, sampler, max_seq_length):
        self.item_text, self.sampler, self.max_seq_length = item_text, sampler, max_seq_length

    def __call__(self, samples):
        negatives = [self.sampler.draw(slot, window) for slot, window in samples]
        windows = [window for _, window in samples]
        return self.collate(windows, np.concatenate(negatives))

    def collate(self, windows, negatives):
        """Item numbers of B windows and of the rank's negatives -> TwoTowerBatch."""
        lengths = np.array([len(window) for window in windows])
        real = np.arange(self.max_seq_length) < lengths[:, None]  # [B, S + 1]
        items, index = np.unique(np.concatenate([*windows, negatives]), return_inverse=True)
        if not len(items):
            items = np.zeros(1, np.int64)  # padding has to point somewhere
        padded = np.zeros(real.shape, np.int64)
        padded[real] = index[: lengths.sum()]
        return TwoTowerBatch(
            items=self.item_text.items(items),
            window=torch.from_numpy(padded),
            valid=torch.from_numpy(real[:, 1:]),
            negatives=torch.from_numpy(index[lengths.sum() :].astype(np.int64)),
            num_users=int((lengths > 0).sum()),
        )
