"""Texts with some of their words hidden, for an encoder to find: BERT's masks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelrec_train.batch import Tensors

HIDDEN, ANOTHER = 0.8, 0.1  # of chosen words: become [MASK], become any word; the rest stay as they are


@dataclass(frozen=True)
class MaskedBatch(Tensors):
    """One rank's part of a micro-batch; N chosen words."""

    ids: Tensor  # [B, S] with masks, padded on the right
    real: Tensor  # [B, S] bool, False at padding
    rows: Tensor  # [N] of the chosen words' places
    columns: Tensor  # [N]
    labels: Tensor  # [N] the words that stood there
    counts: dict[str, int]  # what of this rank the log gives rates of


class MaskedDataset:
    """dataset[slot] -> (ids with masks, places, words there); of an empty slot a text without a chosen word.

    What is chosen is a function of (seed, epoch, text): equal on any number of ranks, and in a resumed run.

    Source: Devlin et al., NAACL 2019 (arXiv:1810.04805), section 3.1.
    """

    def __init__(self, store, tokenizer, share, seed, fixed=False):
        """
        Args:
            store: tokens/blocks.Cut.
            share: of a text's words that are chosen; one at least.
            fixed: the same words in every epoch, to validate.
        """
        self.store, self.share, self.seed, self.fixed = store, share, seed, fixed
        self.num_words, self.mask = len(tokenizer), tokenizer.mask_token_id
        self.before = [n for n in (tokenizer.cls_token_id,) if n is not None]
        self.behind = [n for n in (tokenizer.sep_token_id,) if n is not None]
        around = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, self.mask
        self.special = np.array([n for n in around if n is not None])

    def __len__(self):
        return self.store.num_samples

    def __getitem__(self, slot):
        if slot.sample < 0:
            return np.array([self.mask]), np.zeros(0, np.int64), np.zeros(0, np.int64)
        words, _ = self.store.tokens(slot.sample)
        words = words[~np.isin(words, self.special)]
        ids = np.concatenate([self.before, words, self.behind]).astype(np.int64)
        draw = np.random.default_rng([self.seed, 0 if self.fixed else 1 + slot.epoch, slot.sample])
        count = max(round(self.share * len(words)), 1) if len(words) else 0
        places = np.sort(draw.permutation(len(words))[:count]) + len(self.before)
        labels, way = ids[places], draw.random(count)
        ids[places[way < HIDDEN]] = self.mask
        other = (way >= HIDDEN) & (way < HIDDEN + ANOTHER)
        ids[places[other]] = draw.integers(0, self.num_words, other.sum())
        return ids, places, labels


class MaskingCollator:
    def __init__(self, pad_id):
        self.pad_id = pad_id

    def __call__(self, texts):
        """Texts of MaskedDataset -> MaskedBatch."""
        lengths = [len(ids) for ids, _, _ in texts]
        ids = torch.full((len(texts), max(lengths)), self.pad_id)
        for row, (words, _, _) in zip(ids, texts, strict=True):
            row[: len(words)] = torch.from_numpy(words)
        chosen = [len(places) for _, places, _ in texts]
        return MaskedBatch(
            ids=ids,
            real=torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None],
            rows=torch.repeat_interleave(torch.arange(len(texts)), torch.tensor(chosen)),
            columns=torch.from_numpy(np.concatenate([places for _, places, _ in texts])),
            labels=torch.from_numpy(np.concatenate([labels for _, _, labels in texts])),
            counts={"samples": sum(map(bool, chosen)), "tokens": sum(lengths)},
        )
