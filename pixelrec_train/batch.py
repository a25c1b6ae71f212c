"""THE contract between data, model and loss. Everything else can be read from these shapes.

Shapes: B windows per rank, S history positions, I distinct items, T tokens of all their texts, N negatives.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedTexts:
    """Token ids of many texts, laid end to end in one row."""

    token_ids: Tensor  # [T] int64; with an [ITEM] token, every text ends in a placeholder 0 for it
    lengths: Tensor  # [I] int64, placeholder included; stays on the CPU, where plans are made

    def to(self, device, non_blocking=True):
        return dataclasses.replace(self, token_ids=self.token_ids.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        return dataclasses.replace(self, token_ids=self.token_ids.pin_memory())

    def one(self, i):
        """Text i alone, as a batch of one."""
        start = int(self.lengths[:i].sum())
        length = self.lengths[i : i + 1]
        return PackedTexts(self.token_ids[start : start + int(length)], length)


@dataclass(frozen=True)
class TwoTowerBatch:
    """One micro-batch of one rank. It points at items: each distinct item's text is here once.

    B and N are the same on every rank and at every step; a short last batch is filled up with
    windows that are nowhere valid, so that no collective ever waits for a missing row.
    """

    items: PackedTexts  # the I distinct items of this micro-batch
    window: Tensor  # [B, S + 1] index into items, oldest first, padded on the right with 0
    valid: Tensor  # [B, S] True where window[:, s] -> window[:, s + 1] is a real step
    negatives: Tensor  # [N] index into items: this rank's share of the pool
    num_users: int  # windows that are real

    @property
    def history(self):
        return self.window[:, :-1]  # [B, S]

    @property
    def target(self):
        return self.window[:, 1:]  # [B, S]

    @property
    def num_items(self):
        return len(self.items.lengths)

    @property
    def num_tokens(self):
        return self.items.token_ids.numel()

    def to(self, device, non_blocking=True):
        return self._apply(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        return self._apply(lambda x: x.pin_memory())

    def _apply(self, function):
        moved = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved = {
            k: function(v) if isinstance(v, (torch.Tensor, PackedTexts)) else v for k, v in moved.items()
        }
        return TwoTowerBatch(**moved)
