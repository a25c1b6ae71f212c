"""What is known of a catalogue's items before training: untrained recommenders' scores, vectors of items."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pixelrec_train.config.known import COOCCURRENCE, EASE, ITEM_KNN, LAST, REPEATS, TFIDF
from pixelrec_train.data.cache import cached, fingerprint
from pixelrec_train.data.item_fields import read_fields
from pixelrec_train.errors import InputError
from pixelrec_train.run.log import say
from pixelrec_train.trainings.baselines import chosen_ease
from pixelrec_train.untrained.ease import Ease
from pixelrec_train.untrained.history_sums import HistorySums, taken_before
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

    Raises:
        InputError: an offset has no vectors so narrow, or is not made for so many items.
    """
    if not (config.offsets or config.item_features):
        return None
    check_repeats(config, inputs.interactions.num_items)
    making = Making(inputs, config)
    sums = {name: making.truncated(name, config.offset_width)[0] for name in config.offsets}
    tables = [making.feature(name, config.feature_width) for name in config.item_features]
    joined = torch.from_numpy(np.concatenate(tables, axis=1)) if tables else None
    return KnownItems([making.scorer(name) for name in config.offsets], sums, joined, config.keep_seen)


def check_repeats(config, num_items):
    """Raises InputError where offsets that say what was taken before would say nothing, or find no room."""
    names = [name for name in config.offsets if name in REPEATS]
    if names and not config.keep_seen:
        raise InputError(
            f"--offsets {','.join(names)} says which items were taken before, and these are no candidates "
            f"without --keep_seen. Leave it out, or add the flag."
        )
    if names and config.offset_width < num_items:
        raise InputError(
            f"--offsets {','.join(names)} needs a column for each of the {num_items:,} items, and "
            f"--offset_width is {config.offset_width:,}. Raise it, or leave the offset out."
        )


class Making:
    """Makes each kind once, and what takes long once for all runs (--cache_dir)."""

    def __init__(self, inputs, config):
        self.inputs, self.config, self.made = inputs, config, {}

    def exact(self, name, facts):
        """ItemKnn, Ease, or the HistorySums of TF-IDF; facts: of its truncation, see truncated."""
        if name not in self.made:
            taken, num_items = self.inputs.split.taken, self.inputs.interactions.num_items
            if name == ITEM_KNN:
                self.made[name] = ItemKnn(taken, num_items)
            elif name == EASE:
                self.made[name] = Ease(taken, num_items, facts["penalty"], facts["recent"], facts["decay"])
            else:
                fields, _ = read_fields(self.inputs.interactions.item_ids, self.config)
                self.made[name] = tfidf([" ".join(values or ()) for values in fields])
        return self.made[name]

    def scorer(self, name):
        """(histories, users) -> scores that know nothing of what these users took."""
        sums, facts = self.truncated(name, self.config.offset_width)
        if name == TFIDF or name in REPEATS:
            return lambda histories, users: sums(histories)  # these know nobody
        return self.exact(name, facts).without

    def truncated(self, name, width):
        """(HistorySums of dense vectors, {"recent": …, "decay": …, …} of the recommender)"""
        inputs, keep_seen = self.inputs, self.config.keep_seen
        if name in REPEATS:
            return taken_before(inputs.interactions.num_items, 1 if name == LAST else None), {}
        if name == TFIDF:
            width = min(width, ENOUGH_FOR_TEXTS)
        texts = [Path(self.config.text_data), self.config.text_keys] if name == TFIDF else []
        about = inputs.interactions.fingerprint, inputs.split.origin, keep_seen, *texts
        mark = fingerprint("history sums 4", name, width, *about)

        def build():
            facts = {}
            if name == EASE:
                sums, penalty, note = chosen_ease(self.config, inputs.interactions, inputs.split)
                say(note)
                facts = {"penalty": penalty, "recent": sums.recent, "decay": sums.decay}
            exact = self.exact(name, facts)
            if name != TFIDF:
                exact = exact.sums() if keep_seen else exact.of_its_own()
            sums = exact.truncated(width)
            sides = {"left": sums.left} if sums.right is None else {"left": sums.left, "right": sums.right}
            return sides, facts | {"recent": sums.recent, "decay": sums.decay}

        arrays, facts = cached(self.config.cache_dir, "history_sums", mark, build)
        sides = (np.array(arrays[side]) if side in arrays else None for side in ("left", "right"))
        return HistorySums(*sides, facts["recent"], facts["decay"]), facts

    def feature(self, name, width):
        """[num_items, F] vectors whose mean length over the training items is 1."""
        sums, _ = self.truncated(ITEM_KNN if name == COOCCURRENCE else TFIDF, width)
        known = self.inputs.split.train_counts > 0
        return sums.left / max(np.linalg.norm(sums.left[known], axis=1).mean(), 1e-9)
