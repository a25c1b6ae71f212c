"""THE contract between data, model and loss. Everything else can be read from these shapes.

Shapes: B windows per rank, S history positions, I items a rank encodes, T tokens of their texts, M negatives
in the pool of all ranks.
"""

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np
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
    # [T] on the CPU, of texts that fork: 0 = seen by all that follows in its text, n = of the text's n-th
    # branch, which sees what is 0 and itself, as if it stood right behind that; None = none forks
    branch: Tensor | None = None

    def map(self, function):
        return dataclasses.replace(self, token_ids=function(self.token_ids))

    def part(self, first, stop):
        """The texts first … stop - 1."""
        start, end = int(self.lengths[:first].sum()), int(self.lengths[:stop].sum())
        return PackedTexts(self.token_ids[start:end], self.lengths[first:stop])

    def bounds(self, parts):
        """[(first, stop)] of parts with about equally many tokens; one may be empty."""
        ends = self.lengths.cumsum(0)
        middles = ends - self.lengths / 2
        edges = torch.searchsorted(middles, torch.linspace(0, float(ends[-1]), parts + 1)[1:-1]).tolist()
        return list(itertools.pairwise([0, *edges, len(self.lengths)]))


@dataclass(frozen=True)
class Items(Tensors):
    """Items by number and by text; texts have no tokens where no item LLM reads them."""

    numbers: Tensor  # [I] int64 places in the catalogue
    texts: PackedTexts  # of the same I items


@dataclass(frozen=True)
class Candidates(Tensors):
    """What is known of the items that stand beside each target, besides their embeddings.

    P real positions of this rank's windows, M negatives, K untrained recommenders.
    """

    places: Tensor  # [P] of those positions among all B * S
    of_target: Tensor  # [K, P] the target's offsets: scores, scaled to the largest there is
    offsets: Tensor  # [K, P, M] the same of the pool
    left_out: Tensor  # [P, M] True where a negative is none: the target itself, an item of the history


@dataclass(frozen=True)
class TwoTowerBatch(Tensors):
    """One rank's part of a micro-batch. It points at a table of item embeddings that all ranks make together.

    Each distinct item of the whole micro-batch is encoded by one rank; the shares, filled up to `rows` rows
    each, lie in the table in rank order. B, M, rows and chunks are the same on every rank; a short last batch
    is filled up with windows that are nowhere valid, so that no collective ever waits for a missing row.
    """

    items: Items  # the I items this rank encodes
    rows: int  # rows every rank gives to the table; 0 = nothing is exchanged, the table is this rank's own
    chunks: int  # parts in which the item LLM reads its share
    window: Tensor  # [B, S + 1] rows of the table, oldest first, padded on the right with 0
    valid: Tensor  # [B, S] True where window[:, s] -> window[:, s + 1] is a real step
    negatives: Tensor  # [M] rows of the table: the pool
    mean_steps: Tensor  # [] valid positions of all ranks, divided by the ranks
    num_users: int  # windows of this rank that are real
    token_imbalance: float  # tokens of the largest share over those of the mean share
    candidates: Candidates | None = None
    clock: Tensor | None = None  # [B, S, 5] when the history's items were taken, see clock.clock

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

    @property
    def counts(self):
        """What of this rank the log gives rates of: real windows, items encoded, tokens of their texts."""
        return {"users": self.num_users, "items": self.num_items, "tokens": self.num_tokens}


@dataclass(frozen=True)
class SequenceBatch(Tensors):
    """One rank's part of a micro-batch of histories by item number, for models that read no text.

    Histories are short and a few are long: as many as there is room for stand in a row, none sees another.
    """

    items: Tensor  # [B, S] item numbers that are read, oldest first; 0 in places that hold none
    times: Tensor  # [B, S] float64 seconds; 0 where not known
    target: Tensor  # [B, S] the item behind each
    place: Tensor  # [B, S] of an item in its history, from 0
    history: Tensor  # [B, S] number of the history in its row, from 1; 0 = the place holds no item
    negatives: Tensor  # [M] item numbers, the same on all ranks; none where the loss looks at all items
    log_expected: Tensor  # [M] fp32, taken off the negatives' scores: logarithm of how often each is expected
    mean_steps: Tensor  # [] valid positions of all ranks, divided by the ranks
    num_users: int  # histories of this rank that are real

    @property
    def valid(self):
        return self.history > 0

    @property
    def counts(self):
        """What of this rank the log gives rates of."""
        return {"users": self.num_users}


@dataclass(frozen=True)
class TokenBatch(Tensors):
    """One rank's part of a micro-batch of texts, and which of their tokens are to be predicted.

    A position that is not named is only read. A rank may have no label, but it has a text: it takes part in
    every collective. N labels.
    """

    texts: PackedTexts  # laid end to end; none sees another
    positions: Tensor  # [N] places in the row whose next token is a label
    labels: Tensor  # [N] those tokens
    counts: dict[str, int]  # what of this rank the log gives rates of: {"tokens": …, …}
    weights: Tensor | None = None  # [N] fp32, of the labels in the loss; None = all 1
    sources: Tensor | None = None  # [N] number of the source that each label counts to, see TokenTask
    figures: dict[str, tuple] = dataclasses.field(default_factory=dict)  # of this rank: (sum, count) each


def pad_histories(histories, size):
    """The newest `size` items of b histories -> [b, size], padded with 0 on the right, and [b] lengths."""
    recent = [history[-size:] for history in histories]
    lengths = np.array([len(items) for items in recent])
    padded = np.zeros((len(recent), size), np.int64)
    padded[np.arange(size) < lengths[:, None]] = np.concatenate(recent)
    return torch.from_numpy(padded), torch.from_numpy(lengths)
