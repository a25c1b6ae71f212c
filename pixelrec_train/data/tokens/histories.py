"""Token sequences for the generative head: histories of itemic tokens, and items told in both directions."""

import numpy as np
import torch
from torch.utils.data import Dataset

from pixelrec_train.batch import PackedTexts, TokenBatch

HISTORY, ID_TO_TEXT, TEXT_TO_ID, NEXT = range(4)


class HistoryDataset(Dataset):
    """dataset[slot] -> (kind, [n] item numbers): a training window, or one item in one direction.

    Places 0 … Wn - 1 are the windows of the two-tower head, unchanged; behind them, with alignment, come all
    items from id to text and all from text to id. (-1: an empty slot.)
    """

    def __init__(self, split, align):
        self.items, self.windows = split.taken.items, split.windows
        self.num_items = len(split.train_counts) if align else 0

    def __len__(self):
        return len(self.windows) + 2 * self.num_items

    def __getitem__(self, slot):
        place = slot.sample
        if place < 0:
            return HISTORY, np.zeros(0, np.int64)
        if place < len(self.windows):
            start, end = self.windows[place]
            return HISTORY, np.asarray(self.items[start:end])
        direction, item = divmod(place - len(self.windows), self.num_items)
        return (ID_TO_TEXT, TEXT_TO_ID)[direction], np.array([item])


class HistoryCollator:
    """Makes this rank's TokenBatch from its samples.

    Supervised are the codes of every item but a window's first, the text (with its end) behind an id, and the
    codes behind a text; to validate, the codes of the item behind a history. What surrounds codes is given
    when an item is decoded, so nobody has to learn it.
    """

    def __init__(self, item_text, code_ids, begin_id, end_id, eos_id):
        """
        Args:
            item_text: ItemText in the LLM's own tokens.
            code_ids: [num_items, L] token ids of every item's codes; negative at the end of shorter ones.
            begin_id, end_id: of the tokens around codes, or None.
            eos_id: ends a text.
        """
        self.item_text, self.code_ids, self.eos_id = item_text, code_ids, eos_id
        self.begin, self.end = ([] if i is None else [i] for i in (begin_id, end_id))

    def __call__(self, samples):
        mine = [sample for sample in samples if len(sample[1])]
        # A rank without a sample reads one token, so that it takes part in every collective.
        sequences = [self.sequence(*sample) for sample in mine] or [[([self.eos_id], False)]]
        parts = [part for sequence in sequences for part in sequence]
        tokens = torch.tensor([token for part, _ in parts for token in part])
        asked = torch.tensor([is_asked for part, is_asked in parts for _ in part])
        places = asked.nonzero()[:, 0]  # never the first of a sequence
        return TokenBatch(
            texts=PackedTexts(tokens, torch.tensor([sum(len(p) for p, _ in s) for s in sequences])),
            positions=places - 1,
            labels=tokens[places],
            counts={
                "users": len(mine),
                "items": sum(len(items) for _, items in mine),
                "tokens": len(tokens),
            },  # fmt: skip
        )

    def sequence(self, kind, items):
        """[(tokens, whether they are asked for)] of one sample."""
        if kind in (HISTORY, NEXT):  # each item but the first, or the last alone
            first = 1 if kind == HISTORY else len(items) - 1
            return [part for n, item in enumerate(items) for part in self.item(item, asked=n >= first)]
        if kind == ID_TO_TEXT:
            return [*self.item(items[0], asked=False), (self.text(items[0]) + [self.eos_id], True)]
        # What is asked for needs something in front of it.
        return [(self.text(items[0]) or [self.eos_id], False), *self.item(items[0], asked=True)]

    def prompt(self, items):
        """Tokens that ask for the item after these, oldest first: [T] int64."""
        parts = [part for item in items for part, _ in self.item(item, asked=False)] + [self.begin]
        return torch.tensor([token for part in parts for token in part])

    @property
    def tokens_per_item(self):
        """At most; of codes and what surrounds them."""
        return self.code_ids.shape[1] + len(self.begin) + len(self.end)

    def item(self, item, asked):
        codes = [int(i) for i in self.code_ids[item] if i >= 0]
        return (self.begin, False), (codes, asked), (self.end, False)

    def text(self, item):
        start, end = self.item_text.offsets[item], self.item_text.offsets[item + 1]
        return self.item_text.tokens[start:end].tolist()
