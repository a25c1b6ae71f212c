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

    def similar(self, item_id, k):
        """[Recommendation] of the k items most like one, best first, equals by their number.

        Raises:
            InputError: there is no such item, or a blend is asked.
        """
        (item,) = self.door.numbers([item_id])
        tower = self.door.recommender
        if isinstance(tower, TwoTower):
            parts = (part if tower.cosines else unit(part) for part in tower.parts())
            one = tower.rows([item]) if tower.cosines else unit(tower.rows([item]))
            like = np.concatenate([part @ one[0] for part in parts])
        elif isinstance(self.door.recommender, Generated):
            like = np.cumprod(self.door.all_codes == self.door.all_codes[item], axis=1).sum(1)
        else:
            raise InputError("a blend has no vectors or ids of its own, by which items would be alike.")
        best = np.argsort(-like, kind="stable")
        best = best[best != item][:k]
        return self.door.told(best, like[best], np.array([item]))

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
