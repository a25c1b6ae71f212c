"""Token sequences for the generative head: histories of itemic tokens, and items told in both directions."""

import numpy as np
import torch
from torch.utils.data import Dataset

from pixelrec_train import distributed
from pixelrec_train.batch import DEAD, ItemicBatch, PackedTexts

HISTORY, ID_TO_TEXT, TEXT_TO_ID = range(3)


class ItemicDataset(Dataset):
    """dataset[slot] -> (kind, [n] item numbers): a training window, or one item in one direction.

    Places 0 … Wn - 1 are the windows of the two-tower head, unchanged; behind them, with alignment, come all
    items from id to text and all from text to id. (-1: an empty slot.)
    """

    def __init__(self, interactions, split, align):
        self.items, self.windows = interactions.items, split.windows
        self.num_items = interactions.num_items if align else 0

    def __len__(self):
        return len(self.windows) + 2 * self.num_items

    def __getitem__(self, slot):
        place = slot.window
        if place < 0:
            return HISTORY, np.zeros(0, np.int64)
        if place < len(self.windows):
            start, end = self.windows[place]
            return HISTORY, np.asarray(self.items[start:end])
        direction, item = divmod(place - len(self.windows), self.num_items)
        return (ID_TO_TEXT, TEXT_TO_ID)[direction], np.array([item])


class ItemicCollator:
    """Makes this rank's ItemicBatch from the samples of all ranks.

    Supervised are the codes of every item but a window's first, the text (with its end) behind an id, and the
    codes behind a text. What surrounds codes is given when an item is decoded, so nobody has to learn it.
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
        self.rank, self.ranks = distributed.rank(), distributed.world_size()

    def __call__(self, samples):
        live = sum(self.live(kind, items) for kind, items in samples)
        mine = [self.sequence(kind, items) for kind, items in samples[self.rank :: self.ranks] if len(items)]
        tokens, labels = zip(*(mine or [([self.eos_id], [DEAD])]), strict=True)
        lengths = torch.tensor([len(sequence) for sequence in tokens])
        return ItemicBatch(
            texts=PackedTexts(torch.tensor(sum(tokens, [])), lengths),
            labels=torch.tensor(sum(labels, [])),
            mean_live=torch.tensor(live / self.ranks),
            num_users=len(mine),
        )

    def live(self, kind, items):
        """How many labels of such a sequence are live."""
        if kind == ID_TO_TEXT:
            return int(self.item_text.lengths_of(items).sum()) + 1
        asked = items[1:] if kind == HISTORY else items
        return int((self.code_ids[asked] >= 0).sum())

    def sequence(self, kind, items):
        """(tokens, labels) of one sample: labels[t] is tokens[t + 1] where that is asked for."""
        if kind == HISTORY:
            parts = [part for n, item in enumerate(items) for part in self.item(item, asked=n > 0)]
        elif kind == ID_TO_TEXT:
            parts = [*self.item(items[0], asked=False), (self.text(items[0]) + [self.eos_id], True)]
        else:
            parts = [(self.text(items[0]), False), *self.item(items[0], asked=True)]
        tokens = [token for part, _ in parts for token in part]
        asked = [token if is_asked else DEAD for part, is_asked in parts for token in part]
        return tokens, [*asked[1:], DEAD]

    def item(self, item, asked):
        codes = [int(i) for i in self.code_ids[item] if i >= 0]
        return (self.begin, False), (codes, asked), (self.end, False)

    def text(self, item):
        start, end = self.item_text.offsets[item], self.item_text.offsets[item + 1]
        return self.item_text.tokens[start:end].tolist()
