"""The items that all columns rank, as people see them: ids, texts, semantic ids, cold or new."""

import difflib
import itertools

from pixelrec_train.errors import InputError

NEAR = 2000  # names that one which is not there is compared with, at most


class Catalogue:
    def __init__(self, columns):
        """Raises InputError where they do not rank the same items."""
        doors = [column.shelf.door for column in columns]
        first = doors[0]
        for column in columns[1:]:
            if other := first.number.keys() ^ column.shelf.door.number.keys():
                raise InputError(
                    f"{columns[0].checkpoint} and {column.checkpoint} rank different items: {len(other):,} "
                    f"such as {min(other)!r} are only in one of them. Serve them apart, on two ports."
                )
        self.item_ids, self.number = list(first.item_ids), dict(first.number)
        texts = next((door.texts for door in doors if door.texts), None)
        self.texts = list(texts) if texts else [None] * len(self.item_ids)
        both = zip(self.item_ids, self.texts, strict=True)
        self.searched = [f"{item_id} {text or ''}".lower() for item_id, text in both]
        self.cold = columns[0].shelf.cold.tolist()
        self.num_cold, self.of_training = sum(self.cold), len(self.item_ids)
        self.with_ids = next((door for door in doors if door.codes(0)), None)

    def find(self, words, limit, offset):
        """([number] of items whose id or text holds every word, in any case; whether there are more)"""
        words = words.lower().split()
        hits = (n for n, text in enumerate(self.searched) if all(word in text for word in words))
        found = list(itertools.islice(hits, offset, offset + limit + 1))
        return found[:limit], len(found) > limit

    def told(self, item_id):
        """Fields of messages.Item. An item that a column has just learned is new."""
        n = self.number.get(item_id)
        told = {"item_id": item_id, "text": None, "cold": True, "new": True, "semantic_id": None}
        if n is not None:
            told |= {"text": self.texts[n], "cold": self.cold[n], "new": n >= self.of_training}
        if self.with_ids and item_id in self.with_ids.number:
            told["semantic_id"] = self.with_ids.codes(self.with_ids.number[item_id])
        return told

    def add(self, item_id, text):
        self.item_ids.append(item_id)
        self.texts.append(text)
        self.cold.append(True)
        self.num_cold += 1
        self.searched.append(f"{item_id} {text}".lower())
        self.number[item_id] = len(self.item_ids) - 1

    @property
    def new(self):
        return len(self.item_ids) - self.of_training

    def near(self, item_id):
        """A hint for who named an item that is not there."""
        alike = (name for name in self.item_ids if abs(len(name) - len(item_id)) <= 2)
        match = difflib.get_close_matches(item_id, itertools.islice(alike, NEAR), n=1)
        return f"Did you mean {match[0]!r}?" if match else f"One is {self.item_ids[0]!r}."
