"""Learned vectors of when items were taken, added to what the user LLM reads."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelrec_train.clock import ROWS


class TimeEmbedding(nn.Module):
    """A row for each part of the calendar and each size of gap; zero at first, so that training starts where
    it would without."""

    def __init__(self, weight: Tensor):
        """weight: [ROWS, D]"""
        super().__init__()
        self.weight = nn.Parameter(weight)

    @staticmethod
    def new(width) -> "TimeEmbedding":
        return TimeEmbedding(torch.zeros(ROWS, width))

    def forward(self, clock: Tensor) -> Tensor:
        """[B, S, 5] rows, see clock.clock -> [B, S, D] their sums."""
        return F.embedding(clock, self.weight).sum(-2)
