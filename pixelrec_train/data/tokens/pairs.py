"""Pairs of texts of which one is better, from a TokenStore in which they lie side by side."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelrec_train.batch import PackedTexts, Tensors, TokenBatch


@dataclass(frozen=True)
class PairBatch(Tensors):
    """One rank's part of a micro-batch of B pairs; a rank may have none, but it has a text."""

    tokens: TokenBatch  # texts better, worse, better, worse, …; labels are the words of the answers
    text: (
        Tensor  # [N] of each label, which text it is of: 2 b = the better one of pair b, 2 b + 1 = the worse
    )
    numbers: Tensor  # [B] of the pairs, in the dataset
    reference: Tensor  # [B, 2] fp32 log-probabilities by the reference
    counts: dict[str, int]  # what of this rank the log gives rates of

    @property
    def num_pairs(self):
        return len(self.reference)


class PairDataset:
    """dataset[slot] -> (number of a pair, its two texts as (ids, is_label)); of an empty slot nothing."""

    def __init__(self, store, longest):
        """
        Args:
            store: TokenStore whose samples 2 k and 2 k + 1 are a pair.
            longest: tokens of a text; pairs with a longer one, or without a label, are left out.
        """
        self.store = store
        lengths, labels = store.lengths.reshape(-1, 2), store.num_labels.reshape(-1, 2)
        self.too_long = (lengths > longest).any(1)
        self.pairs = np.flatnonzero(~self.too_long & (labels > 0).all(1))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, slot):
        if slot.sample < 0:
            return None
        pair = int(self.pairs[slot.sample])
        return slot.sample, [self.store.tokens(2 * pair + side) for side in (0, 1)]


class PairCollator:
    def __init__(self, pad_id):
        """pad_id: what a rank without a pair reads."""
        self.pad_id, self.reference = pad_id, None  # [P, 2], once it is known

    def __call__(self, found):
        """Pairs of PairDataset -> PairBatch."""
        found = [pair for pair in found if pair is not None]
        texts = [text for _, both in found for text in both] or [(np.array([self.pad_id]), np.zeros(1, bool))]
        lengths = np.array([len(ids) for ids, _ in texts])
        token_ids = torch.from_numpy(np.concatenate([ids for ids, _ in texts]).astype(np.int64))
        is_label = np.concatenate([labels for _, labels in texts])
        places = np.flatnonzero(is_label)
        counts = {"pairs": len(found), "tokens": len(token_ids) if found else 0}
        tokens = TokenBatch(
            texts=PackedTexts(token_ids, torch.from_numpy(lengths)),
            positions=torch.from_numpy(places - 1),
            labels=token_ids[places],
            counts=counts,
        )
        numbers = np.array([number for number, _ in found], np.int64)
        known = np.zeros((len(numbers), 2)) if self.reference is None else self.reference[numbers]
        text = torch.from_numpy(np.repeat(np.arange(len(texts)), lengths)[places])
        return PairBatch(tokens, text, torch.from_numpy(numbers), torch.from_numpy(known).float(), counts)
