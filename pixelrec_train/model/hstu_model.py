"""HSTU: pointwise attention, weighted by how far apart two items are in the history and in time."""

import torch
import torch.nn.functional as F
from torch import nn

from pixelrec_train.model.sequential_model import SequentialModel, sees

TIME_BUCKETS = 64  # of the logarithm of seconds between two items: a bucket ends at sqrt(2) times the last


class HSTUModel(SequentialModel):
    """Learned item vectors, HSTU blocks, inner-product scores; no softmax in the attention.

    The time of the item to be found is not read: a distance in time is that between two items of the history.

    Source: Zhai et al., ICML 2024 (arXiv:2402.17152).
    """

    def __init__(self, num_items, longest, hidden_size, layers, heads, dropout):
        super().__init__(num_items, longest, hidden_size)
        self.positions = nn.Parameter(torch.empty(longest, hidden_size).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(HstuBlock(hidden_size, heads, dropout, longest) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, items, times, place=None, history=None):
        if place is None:
            place = torch.arange(items.shape[1], device=items.device)[None]
        mask = None if history is None else sees(history)[:, None]
        hidden = self.dropout(F.embedding(items, self.items) + F.embedding(place, self.positions))
        distance = (place[:, :, None] - place[:, None]).clamp(min=0)  # [B, S, S]
        bucket = time_bucket(times[:, :, None] - times[:, None])  # [B, S, S]
        for block in self.blocks:
            hidden = block(hidden, distance, bucket, mask)
        return self.norm(hidden)


def time_bucket(seconds):
    """Bucket of a distance in time: 0 below a second, then two for every doubling."""
    logarithm = 2 * seconds.abs().clamp(min=0.5).log2() + 1
    return logarithm.floor().clamp(0, TIME_BUCKETS - 1).long()


class HstuBlock(nn.Module):
    """x + W(norm(A v) * u), A = silu(q k' + position bias + time bias) / longest, below the diagonal."""

    def __init__(self, width, heads, dropout, longest):
        super().__init__()
        self.heads, self.longest = heads, longest
        self.norm, self.read_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.by_distance = nn.Parameter(torch.zeros(longest))
        self.by_time = nn.Parameter(torch.zeros(TIME_BUCKETS))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, distance, bucket, mask=None):
        """[B, S, D], twice [B, S, S], [B, 1, S, S] bool (None = each sees all before it) -> [B, S, D]"""
        gate, *parts = F.silu(self.into(self.norm(x))).chunk(4, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        bias = self.by_distance[distance] + self.by_time[bucket]  # [B, S, S]
        weights = F.silu(query @ key.transpose(-1, -2) + bias[:, None]) / self.longest
        weights = weights.tril() if mask is None else weights * mask
        read = (weights @ value).transpose(1, 2).flatten(2)
        return x + self.out(self.dropout(self.read_norm(read) * gate))
