"""Packs of samples, laid end to end: which texts lie in which batch, in every epoch."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from pixelrec_train.batch import PackedTexts, TokenBatch
from pixelrec_train.data.cache import cached, fingerprint, loaded
from pixelrec_train.data.tokens.mixture import Mixture
from pixelrec_train.data.tokens.packs import Packs, pack


class Packing(NamedTuple):
    """How an epoch's samples are laid into packs."""

    max_length: int  # tokens of a pack
    how: str = "best_fit"  # see packs.pack
    cut_to_pad: bool = False  # greedy: a sample that overflows a pack is cut


class Piece(NamedTuple):
    """A sample as far as its pack has room for it."""

    token_ids: np.ndarray  # [T] int32
    is_label: np.ndarray  # [T] bool
    source: int  # number of its source


class PackDataset(Dataset):
    """dataset[slot] -> the Pieces of one pack; of an empty slot none.

    An epoch's packs are a function of (seed, epoch) alone. They are made once, when the loader first asks how
    many there are, and memory-mapped ever after, by workers and by a run that goes on.
    """

    def __init__(self, store, entries, usable, packing: Packing, seed, cache_dir):
        """
        Args:
            store: TokenStore.
            entries: [mixture.Entry] of its samples.
            usable: [N] bool, whether a sample may be read.

        Raises:
            ValueError: as Mixture, or there would be epochs without a sample.
        """
        self.store, self.packing, self.seed, self.cache_dir = store, packing, seed, cache_dir
        self.mixture = Mixture(entries, usable)
        if max(self.mixture.rates) < 1:
            raise ValueError("an epoch would hold less than a sample of any source; raise its epochs")
        self.longest = int(store.lengths[usable].max())
        # Names everything that order and packs depend on.
        self.mark = fingerprint("packs 1", store.fingerprint, entries, usable.tobytes(), packing, seed)
        self.opened, self.sizes = {}, {}  # of the epoch that is read, as each holds files open; of all

    def samples_in(self, epoch):
        """How many packs it has. All ranks call it alike."""
        if epoch not in self.sizes:
            self.sizes[epoch] = len(self.packs(epoch))
        return self.sizes[epoch]

    def packs(self, epoch):
        """Packs of an epoch, made where they are not there."""
        if epoch not in self.opened:
            made = cached(self.cache_dir, "packs", self.name(epoch), lambda: (vars(self.plan(epoch)), {}))
            self.opened = {epoch: Packs(**made[0])}
        return self.opened[epoch]

    def __getitem__(self, slot):
        if slot.sample < 0:
            return []
        if slot.epoch not in self.opened:  # samples_in has made them
            arrays, _ = loaded(Path(self.cache_dir) / f"packs-{self.name(slot.epoch)}")
            self.opened = {slot.epoch: Packs(**arrays)}
        samples, lengths = self.opened[slot.epoch].pieces(slot.sample)
        return [self.piece(*pair) for pair in zip(samples.tolist(), lengths.tolist(), strict=True)]

    def piece(self, sample, length):
        token_ids, is_label = self.store.tokens(sample)
        return Piece(token_ids[:length], is_label[:length], int(self.store.source[sample]))

    def name(self, epoch):
        return fingerprint(self.mark, epoch)

    def plan(self, epoch):
        """Packs of the store's own numbers of samples."""
        order = self.mixture.order(self.seed, epoch)
        packs = pack(self.store.lengths[order], *self.packing)
        return Packs(packs.first, order[packs.sample], packs.length)


class PackCollator:
    """Packs of a micro-batch -> this rank's TokenBatch."""

    def __init__(self, sources, max_length, pad_id, one_text=False, with_shares=False):
        """
        Args:
            sources: names; a piece counts to sources[piece.source].
            max_length: tokens of a pack.
            pad_id: what a rank without a pack reads: it takes part in every collective.
            one_text: a pack is read as one text, in which a sample sees those before it.
            with_shares: say which share of samples and tokens is of which source.
        """
        self.sources, self.max_length, self.pad_id = sources, max_length, pad_id
        self.one_text, self.with_shares = one_text, with_shares

    def __call__(self, packs):
        packs = [pack for pack in packs if pack]
        nothing = Piece(np.array([self.pad_id], np.int32), np.zeros(1, bool), 0)
        pieces = [piece for pack in packs for piece in pack] or [nothing]
        lengths = np.array([len(piece.token_ids) for piece in pieces])
        token_ids = torch.from_numpy(np.concatenate([piece.token_ids for piece in pieces]).astype(np.int64))
        is_label = np.concatenate([piece.is_label for piece in pieces])
        is_label[lengths.cumsum() - lengths] = False  # nothing stands before the first of a text
        places = np.flatnonzero(is_label)
        source = np.array([piece.source for piece in pieces])
        texts = (
            [sum(len(p.token_ids) for p in pack) for pack in packs] if self.one_text and packs else lengths
        )
        samples, tokens = (len(pieces), len(token_ids)) if packs else (0, 0)
        figures = {"fill": (tokens, len(packs) * self.max_length)}
        if self.with_shares:
            figures |= self.shares(source[:samples], lengths[:samples])
        return TokenBatch(
            texts=PackedTexts(token_ids, torch.as_tensor(texts)),
            positions=torch.from_numpy(places - 1),
            labels=token_ids[places],
            counts={"samples": samples, "tokens": tokens, "labels": len(places)},
            sources=torch.from_numpy(np.repeat(source, lengths)[places]),
            figures=figures,
        )

    def shares(self, source, lengths):
        """{"samples_of/video_rec": (its samples, all), "tokens_of/video_rec": (its tokens, all), …}"""
        counted = {"samples_of": np.ones(len(source)), "tokens_of": lengths}
        sums = {kind: np.bincount(source, of, len(self.sources)) for kind, of in counted.items()}
        return {
            f"{kind}/{name}": (float(of[n]), float(of.sum()))
            for kind, of in sums.items()
            for n, name in enumerate(self.sources)
        }
