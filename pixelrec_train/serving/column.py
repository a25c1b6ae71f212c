"""A checkpoint that is served: its name, what it answers, and the thread that runs it."""

from typing import NamedTuple

from pixelrec_train.errors import InputError
from pixelrec_train.serving.batching import Batcher


class Wanted(NamedTuple):
    """The k best items for a history."""

    history: tuple[str, ...]
    k: int
    exclude_seen: bool


class Column:
    def __init__(self, name, checkpoint, shelf, limits):
        """
        Args:
            name: what requests call it.
            checkpoint: where it lies.
            shelf: Shelf, which no other thread may ask from now on.
            limits: config.serving.LimitFlags.
        """
        self.name, self.checkpoint, self.shelf = name, checkpoint, shelf
        self.batcher = Batcher(
            lambda questions: answers(shelf, questions),
            limits.batch,
            limits.max_waiting,
            limits.company_ms / 1000,
        )

    @property
    def places_new_items(self):
        return self.shelf.placer is not None

    async def recommend(self, wanted, seconds):
        """[Recommendation]"""
        return await self.batcher.ask(wanted, seconds)

    async def similar(self, item_id, k, seconds):
        return await self.batcher.ask(lambda shelf: shelf.similar(item_id, k), seconds)

    async def add_item(self, item_id, values):
        """It takes as long as it takes: half of the columns must not know an item that the others do not."""
        await self.batcher.ask(lambda shelf: shelf.add_item(item_id, values))


def answers(shelf, questions):
    """[answer, or the exception that is one] in the order of the questions.

    Args:
        questions: Wanted, which are answered together where k and what is left out are the same; or functions
            of the shelf, which stand alone.
    """
    found, alike = [None] * len(questions), {}
    for n, question in enumerate(questions):
        try:
            if callable(question):
                found[n] = question(shelf)
            else:
                shelf.door.numbers(question.history)
                alike.setdefault(question[1:], []).append(n)
        except InputError as error:  # of this question alone
            found[n] = error
    for (k, exclude_seen), numbers in alike.items():
        lists = shelf.door.recommend([questions[n].history for n in numbers], k, exclude_seen)
        for n, one in zip(numbers, lists, strict=True):
            found[n] = one
    return found
