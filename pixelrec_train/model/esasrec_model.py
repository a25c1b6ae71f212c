"""eSASRec's network: SASRec with LiGR blocks, whose branches pass a gate and whose feed-forward is SwiGLU."""

import torch
import torch.nn.functional as F
from torch import nn

from pixelrec_train.model.sequential_model import SequentialModel, sees


class ESASRecModel(SequentialModel):
    """Learned item and position vectors, LiGR blocks, inner-product scores.

    Source: eSASRec (Tikhonovich et al., RecSys 2025, arXiv:2508.06450); LiGR (arXiv:2502.03417).
    """

    def __init__(self, num_items, longest, hidden_size, layers, heads, dropout):
        super().__init__(num_items, longest, hidden_size)
        self.positions = nn.Parameter(torch.empty(longest, hidden_size).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(LigrBlock(hidden_size, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, items, times, place=None, history=None):
        positions = self.positions[: items.shape[1]] if place is None else F.embedding(place, self.positions)
        hidden = self.dropout(F.embedding(items, self.items) + positions)
        mask = None if history is None else sees(history)[:, None]
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self.norm(hidden)


class LigrBlock(nn.Module):
    """x + attention(norm x) * sigmoid(Gx), then x + swiglu(norm x) * sigmoid(Gx)."""

    def __init__(self, width, heads, dropout, inner=4):
        """inner: width of the feed-forward, in widths of the block."""
        super().__init__()
        self.heads, self.share = heads, dropout
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_gate, self.feed_forward_gate = nn.Linear(width, width), nn.Linear(width, width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * inner * width), nn.Linear(inner * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        """[B, S, D], [B, 1, S, S] bool (None = each sees all before it) -> [B, S, D]"""
        x = x + self.dropout(self.attend(self.attention_norm(x), mask) * self.attention_gate(x).sigmoid())
        return x + self.dropout(
            self.feed_forward(self.feed_forward_norm(x)) * self.feed_forward_gate(x).sigmoid()
        )

    def attend(self, x, mask):
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, S, D / heads]
            for part in self.query_key_value(x).chunk(3, -1)
        )
        share = self.share if self.training else 0.0
        read = F.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=share, is_causal=mask is None
        )
        return self.out(read.transpose(1, 2).flatten(2))

    def feed_forward(self, x):
        gate, up = self.up(x).chunk(2, -1)
        return self.down(self.dropout(F.silu(gate) * up))
