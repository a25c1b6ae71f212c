"""THE contract between data, model and loss. Everything else can be read from these shapes.

Shapes: B windows per rank, S history positions, I distinct items, T tokens of all their texts, N negatives.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


class Tensors:
    """A dataclass of tensors that moves as one: to a device, or into pinned memory."""

    def to(self, device, non_blocking=True):
        return self.map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        return self.map(lambda x: x.pin_memory())

    def map(self, function):
        moved = {f.name: moved_value(getattr(self, f.name), function) for f in dataclasses.fields(self)}
        return type(self)(**moved)


def moved_value(value, function):
    if isinstance(value, Tensors):
        return value.map(function)
    return function(value) if isinstance(value, torch.Tensor) else value


@dataclass(frozen=True)
class PackedTexts(Tensors):
    """Token ids of many texts, laid end to end in one row."""

    token_ids: Tensor  # [T] int64; with an [ITEM] token, every text ends in a placeholder 0 for it
    lengths: Tensor  # [I] int64, placeholder included; stays on the CPU, where plans are made

    def map(self, function):
        return dataclasses.replace(self, token_ids=function(self.token_ids))

    def one(self, i):
        """Text i alone, as a batch of one."""
        start = int(self.lengths[:i].sum())
        length = self.lengths[i : i + 1]
        return PackedTexts(self.token_ids[start : start + int(length)], length)


@dataclass(frozen=True)
class Items(Tensors):
    """Items by number and by text; texts have no tokens where no item LLM reads them."""

    numbers: Tensor  # [I] int64 places in the catalogue
    texts: PackedTexts  # of the same I items


@dataclass(frozen=True)
class TwoTowerBatch(Tensors):
    """One micro-batch of one rank. It points at items: each distinct item is here once.

    B and N are the same on every rank and at every step; a short last batch is filled up with
    windows that are nowhere valid, so that no collective ever waits for a missing row.
    """

    items: Items  # the I distinct items of this micro-batch
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
        return len(self.items.numbers)

    @property
    def num_tokens(self):
        return self.items.texts.token_ids.numel()


def pad_histories(histories, size):
    """The newest `size` items of b histories -> [b, size], padded with 0 on the right, and [b] lengths."""
    recent = [history[-size:] for history in histories]
    padded = torch.zeros(len(recent), size, dtype=torch.long)
    for row, items in zip(padded, recent, strict=True):
        row[: len(items)] = torch.from_numpy(items.astype("int64"))
    return padded, torch.tensor([len(items) for items in recent])
