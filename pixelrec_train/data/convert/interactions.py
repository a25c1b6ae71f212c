"""Blocks of a public data set as arrays of numbers, and the steps that leave some of them."""

from dataclasses import dataclass, replace

import numpy as np

from pixelrec_train.data.convert import filters


class Numbers:
    """Ids -> numbers from 0, in the order in which they come."""

    def __init__(self):
        self.of = {}

    def number(self, texts):
        """[n] int32 of a pyarrow array of ids."""
        encoded = texts.dictionary_encode()
        known = [self.of.setdefault(text, len(self.of)) for text in encoded.dictionary.to_pylist()]
        return np.array(known, np.int32)[encoded.indices.to_numpy()]


@dataclass(frozen=True)
class Interactions:
    """Twenty bytes each, and each id once."""

    user_ids: dict[str, int]  # id -> number
    item_ids: dict[str, int]
    users: np.ndarray  # [n] int32
    items: np.ndarray
    times: np.ndarray  # [n] float64
    ratings: np.ndarray | None  # [n] float32

    @staticmethod
    def read(blocks, tell):
        """tell: is called with how many rows each block had."""
        user_ids, item_ids, parts = Numbers(), Numbers(), []
        for block in blocks:
            parts.append((user_ids.number(block.users), item_ids.number(block.items), *block[2:]))
            tell(len(block.times))
        if not parts:
            none = np.zeros(0, np.int32)
            return Interactions({}, {}, none, none, np.zeros(0), None)
        users, items, times, ratings = zip(*parts, strict=True)
        parts.clear()
        return Interactions(
            user_ids.of, item_ids.of, np.concatenate(users), np.concatenate(items), np.concatenate(times),
            None if ratings[0] is None else np.concatenate(ratings),
        )  # fmt: skip

    def __len__(self):
        return len(self.users)

    @property
    def counts(self):
        """(users, items, interactions) that occur"""
        users, items = (int(np.count_nonzero(np.bincount(ids))) for ids in (self.users, self.items))
        return users, items, len(self)

    def kept(self, rows):
        ratings = None if self.ratings is None else self.ratings[rows]
        return replace(
            self, users=self.users[rows], items=self.items[rows], times=self.times[rows], ratings=ratings
        )

    def steps(self, min_rating, duplicates, k, max_users, seed):
        """Yields (what is left out, Interactions) of each step that is asked for; None = it is not."""
        left = self
        if min_rating is not None:
            left = left.kept(left.ratings >= np.float32(min_rating))
            yield f"rating at least {min_rating:g}", left
        if duplicates != "all":
            left = left.kept(filters.distinct(left.users, left.items, left.times, duplicates))
            what = "user, item and time once" if duplicates == "exact" else "a user's first of each item"
            yield what, left
        if k > 1:
            left = left.kept(filters.k_core(left.users, left.items, k))
            yield f"{k}-core", left
        if max_users is not None:
            left = left.kept(filters.some_users(left.users, max_users, seed))
            yield f"{max_users:,} users, drawn by seed {seed}", left

    def by_time(self):
        """The same, oldest first; rows of one time stay in their order."""
        return self.kept(np.argsort(self.times, kind="stable"))

    def rows(self):
        """Yields item id, user id, timestamp and perhaps rating as they are written: 4 for 4.0."""
        users, items = list(self.user_ids), list(self.item_ids)
        columns = [
            map(items.__getitem__, self.items),
            map(users.__getitem__, self.users),
            map(shown, self.times),
        ]
        columns += [] if self.ratings is None else [map(shown, self.ratings)]
        return zip(*columns, strict=True)


def shown(number):
    """A number as text, without a zero behind the point; float32 in as few digits as tell it apart."""
    whole = int(number)
    return str(whole) if whole == number else str(number)
