"""Training windows as a torch dataset."""

import numpy as np
from torch.utils.data import Dataset


class HistoryDataset(Dataset):
    """dataset[slot] -> (slot, [n] item numbers of its window, oldest first; none for an empty slot)."""

    def __init__(self, split):
        self.items, self.windows = split.taken.items, split.windows

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, slot):
        start, end = self.windows[slot.sample] if slot.sample >= 0 else (0, 0)
        return slot, np.asarray(self.items[start:end])
