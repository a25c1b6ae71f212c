"""Texts of numbered items on disk, written in the order of a table and read in that of the items."""

import os
from pathlib import Path

import numpy as np

from pixelrec_train.data.cache import nameless, writing

AT_ONCE = 1 << 14  # items whose texts are read together


class TextFile:
    """A nameless file of them. In memory: 12 bytes an item."""

    def __init__(self, num_items, cache_dir):
        self.directory = Path(cache_dir)
        self.starts = np.full(num_items, -1, np.int64)  # -1 = not written, which is the empty text
        self.lengths = np.zeros(num_items, np.int32)
        self.file = nameless(cache_dir)

    def __len__(self):
        return len(self.starts)

    def write(self, numbers, texts):
        """numbers: [n] of items; texts: their n texts.

        Raises:
            InputError: the disk is full.
        """
        order = np.argsort(numbers // AT_ONCE, kind="stable")  # what is read together lies together
        parts = [texts[n].encode("utf-8", "surrogatepass") for n in order.tolist()]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        numbers = numbers[order]
        self.starts[numbers] = self.file.tell() + np.cumsum(lengths) - lengths
        self.lengths[numbers] = lengths
        with writing(self.directory):
            self.file.write(b"".join(parts))
            self.file.flush()

    def blocks(self):
        """Lists of the texts of items 0, 1, …, some at a time."""
        for first in range(0, len(self), AT_ONCE):
            starts, lengths = (x[first : first + AT_ONCE] for x in (self.starts, self.lengths))
            texts = [""] * len(starts)
            rows = np.argsort(starts, kind="stable")
            rows = rows[starts[rows] >= 0]
            ends = starts[rows] + lengths[rows]
            for run in np.split(rows, np.flatnonzero(starts[rows[1:]] != ends[:-1]) + 1):
                self.read(run.tolist(), starts[run], lengths[run], texts)
            yield texts

    def read(self, rows, starts, lengths, texts):
        """Those that lie end to end."""
        size, ends = int(lengths.sum()), np.cumsum(lengths)
        characters = os.pread(self.file.fileno(), size, int(starts[0])) if size else b""
        for row, begin, end in zip(rows, (ends - lengths).tolist(), ends.tolist(), strict=True):
            texts[row] = characters[begin:end].decode("utf-8", "surrogatepass")
