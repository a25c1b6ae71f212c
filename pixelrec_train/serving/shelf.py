"""A Recommender that lives on: it also says what is alike and what is cold, and takes new items."""

import numpy as np

from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.generation import Generated
from pixelrec_train.evaluation.index import unit
from pixelrec_train.evaluation.retrieval import TwoTower


class Shelf:
    def __init__(self, door):
        """door: trainings.recommend.Recommender, which nobody else asks from now on."""
        self.door, self.placer = door, door.loaded.placer
        counts = np.zeros(len(door.item_ids), np.int64)  # of items that only --new_items names there are none
        counts[: len(door.loaded.inputs.split.train_counts)] = door.loaded.inputs.split.train_counts
        self.cold = counts == 0

    def recommend(self, histories, k, exclude_seen=True):
        """As Recommender.recommend; of a generative model, searches of one width share a block."""
        if not isinstance(self.door.recommender, Generated):
            return self.door.recommend(histories, k, exclude_seen)
        kept = None if exclude_seen else 0
        left_out = [np.unique(self.door.numbers(history)[:kept]) for history in histories]
        lists = [None] * len(histories)
        for some, _ in self.door.recommender.by_width(left_out, min(k, len(self.door.item_ids))):
            found = self.door.recommend([histories[n] for n in some], k, exclude_seen)
            for n, one in zip(some, found, strict=True):
                lists[n] = one
        return lists

    def similar(self, item_id, k):
        """[Recommendation] of the k items most like one, best first, equals by their number.

        Raises:
            InputError: there is no such item, or a blend is asked.
        """
        (item,) = self.door.numbers([item_id])
        if isinstance(self.door.recommender, TwoTower):
            vectors = unit(self.door.recommender.items)
            like = vectors @ vectors[item]
        elif isinstance(self.door.recommender, Generated):
            like = np.cumprod(self.door.all_codes == self.door.all_codes[item], axis=1).sum(1)
        else:
            raise InputError("a blend has no vectors or ids of its own, by which items would be alike.")
        best = np.argsort(-like, kind="stable")
        best = best[best != item][:k].tolist()
        return [self.door.told(other, float(like[other]), [item]) for other in best]

    def add_item(self, item_id, values):
        """Make an item recommendable that nobody took yet, placed by its text; gone when the process ends.

        Args:
            values: {text column: text}, of those the checkpoint was trained on.

        Raises:
            InputError: the catalogue has it, a column is not read, or the model cannot place it.
        """
        door = self.door
        if item_id in door.number:
            raise InputError(f"the catalogue has an item {item_id!r} already. Choose another id.")
        if self.placer is None:
            raise InputError(
                "this model cannot place a new item by its text alone: it needs a semantic id, a vector of "
                "its own, or what others took with it."
            )
        door.recommender = self.placer.with_item(door.recommender, values)
        first = next(values[key] for key in self.placer.text_keys if values.get(key))
        door.texts = door.texts and [*door.texts, first]
        door.item_ids = [*door.item_ids, item_id]
        door.number[item_id] = len(door.item_ids) - 1  # at last: other threads ask by it what is there
