"""What is known of a catalogue's items before training: untrained recommenders' scores, vectors of items."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pixelrec_train.config.known import COOCCURRENCE, ITEM_KNN, TFIDF
from pixelrec_train.data.cache import cached, fingerprint
from pixelrec_train.data.item_fields import read_fields
from pixelrec_train.untrained.history_sums import HistorySums
from pixelrec_train.untrained.item_knn import ItemKnn
from pixelrec_train.untrained.tfidf import tfidf

ENOUGH_FOR_TEXTS = 512  # columns of TF-IDF: as many rank as all words do


class KnownItems(NamedTuple):
    scorers: list  # of candidates.Beside, one for each of --offsets
    sums: dict[str, HistorySums]  # of dense vectors, the same
    features: torch.Tensor | None  # [num_items, F] fp32 of --item_features
    keep_seen: bool  # whether items of a history are candidates


def known_items(inputs, config):
    """KnownItems of Inputs, or None where neither --offsets nor --item_features ask for any.

    config: KnownFlags, TextFlags, RankingFlags.
    """
    if not (config.offsets or config.item_features):
        return None
    making = Making(inputs, config)
    widths = {ITEM_KNN: config.offset_width, TFIDF: min(config.offset_width, ENOUGH_FOR_TEXTS)}
    sums = {name: making.truncated(name, widths[name]) for name in config.offsets}
    tables = [making.feature(name, config.feature_width) for name in config.item_features]
    joined = torch.from_numpy(np.concatenate(tables, axis=1)) if tables else None
    return KnownItems([making.scorer(name, sums) for name in config.offsets], sums, joined, config.keep_seen)


class Making:
    """Makes each kind once, and what takes long once for all runs (--cache_dir)."""

    def __init__(self, inputs, config):
        self.inputs, self.config, self.made = inputs, config, {}

    def exact(self, name):
        """ItemKnn, or the HistorySums of TF-IDF."""
        if name not in self.made:
            self.made[name] = self.item_knn() if name == ITEM_KNN else self.tfidf()
        return self.made[name]

    def item_knn(self):
        return ItemKnn(self.inputs.split.taken, self.inputs.interactions.num_items)

    def tfidf(self):
        fields, _ = read_fields(self.inputs.interactions.item_ids, self.config)
        return tfidf([" ".join(values or ()) for values in fields])

    def scorer(self, name, sums):
        """(histories, users) -> scores that know nothing of what these users took."""
        if name == ITEM_KNN:
            return self.exact(name).without
        return WithoutUsers(sums[name])  # texts know nobody

    def truncated(self, name, width):
        """HistorySums of dense vectors."""
        inputs = self.inputs
        texts = [Path(self.config.text_data), self.config.text_keys] if name == TFIDF else []
        keep_seen = self.config.keep_seen
        about = inputs.interactions.fingerprint, inputs.split.origin, keep_seen, *texts
        mark = fingerprint("history sums 2", name, width, *about)

        def build():
            exact = self.exact(name)
            if name == ITEM_KNN:
                exact = exact.sums() if keep_seen else exact.of_its_own()
            sums = exact.truncated(width)
            return {"left": sums.left, "right": sums.right}, {"recent": sums.recent, "decay": sums.decay}

        arrays, facts = cached(self.config.cache_dir, "history_sums", mark, build)
        sides = (np.array(arrays[side]) for side in ("left", "right"))
        return HistorySums(*sides, facts["recent"], facts["decay"])

    def feature(self, name, width):
        """[num_items, F] vectors whose mean length over the training items is 1."""
        vectors = self.truncated(ITEM_KNN if name == COOCCURRENCE else TFIDF, width).left
        known = self.inputs.split.train_counts > 0
        return vectors / max(np.linalg.norm(vectors[known], axis=1).mean(), 1e-9)


class WithoutUsers:
    def __init__(self, sums):
        self.sums = sums

    def __call__(self, histories, users):
        return self.sums(histories)
