"""Vectors as they are ranked by: rows of a table that is not copied for it, or a copy on the device."""

from functools import cached_property

import numpy as np
import torch

from pixelrec_train import distributed

ROWS = 1024  # that are made at a time, in a processor's cache
SLACK = 2.0**-20  # of |user| |item|: more than scores, bounds, norms and levels are rounded by


class Vectors:
    """On a CPU they are made of the table whenever they are asked for; on a GPU they lie there."""

    def __init__(self, table, numbers=None, cosines=False):
        """
        Args:
            table: [n, D] fp32.
            numbers: [M] those of its rows that are vectors; None = all of them.
            cosines: they have length 1, as of index.unit.
        """
        self.table, self.numbers, self.norms = torch.from_numpy(table), None, None
        if numbers is not None:
            self.numbers = torch.from_numpy(numbers)
        if cosines:
            parts = (table[first : first + ROWS] for first in range(0, len(table), ROWS))
            self.norms = torch.from_numpy(np.concatenate([norms(part) for part in parts]))
        if distributed.device().type != "cpu":
            there = torch.empty(len(self), self.width, device=distributed.device())
            for first in range(0, len(self), ROWS * 64):
                part = self.part(first, min(first + ROWS * 64, len(self)))
                there[first : first + len(part)] = part
            self.table, self.numbers, self.norms = there, None, None

    def __len__(self):
        return len(self.table if self.numbers is None else self.numbers)

    @property
    def width(self):
        return self.table.shape[1]

    @property
    def device(self):
        return self.table.device

    @cached_property
    def longest(self):
        """The largest norm, a little more rather than less."""
        return max(longest(part) for part in self.parts(0, len(self)))

    def rows(self, numbers):
        """[m, D] the vectors [m] numbers."""
        at = numbers if self.numbers is None else self.numbers.index_select(0, numbers)
        rows = self.table.index_select(0, at)
        return rows if self.norms is None else rows.div_(self.norms.index_select(0, at)[:, None])

    def part(self, first, end):
        """[end - first, D] the vectors first … end - 1."""
        if self.numbers is not None:
            return self.rows(torch.arange(first, end))
        rows = self.table[first:end]
        return rows if self.norms is None else rows / self.norms[first:end, None]

    def parts(self, first, end):
        """The vectors first … end - 1, a few at a time where they are made; views of all where they lie."""
        made = self.numbers is not None or self.norms is not None
        step = ROWS if made else max(1, end - first)
        return (self.part(start, min(start + step, end)) for start in range(first, end, step))


def norms(vectors):
    """[n] fp32 what the vectors are divided by to have length 1; a zero vector stays zero."""
    return np.maximum(np.linalg.norm(vectors, axis=1), np.float32(1e-12))


def longest(vectors):
    """The largest norm of [n, D] fp32 vectors, a little more rather than less."""
    return float(vectors.norm(dim=1).max()) * (1 + SLACK)
