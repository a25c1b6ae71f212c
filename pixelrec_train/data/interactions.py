"""Who took which item when: a table becomes every user's items, oldest first, and what a split of them is.

Users and items are numbered from 0 in the order of their first row. All users' items lie in one flat
array; a stretch of one user's items is a pair (start, end) into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelrec_train.data.cache import cached, fingerprint
from pixelrec_train.data.ids import Ids
from pixelrec_train.errors import InputError

NO_LABEL = "Use --split valid, or scripts/predict.py, which needs no label"


@dataclass(frozen=True)
class Interactions:
    """items[offsets[u]:offsets[u + 1]] are user u's items, oldest first."""

    items: np.ndarray  # [R] int32
    offsets: np.ndarray  # [U + 1] int64
    user_id_bytes: np.ndarray  # the table's user ids, end to end in UTF-8; mapped, as there may be millions
    user_id_ends: np.ndarray  # [U] where each of them ends
    item_ids: Sequence[str]  # the table's id of item i; the catalogue is exactly these items
    unusable: dict[str, int]  # why rows were left out -> how many
    fingerprint: str
    notes: tuple[str, ...] = ()  # what a person may want to know of how it was read
    # 0, 1, 2 = of training, validation, test, where those are tables of their own: [R], or [U] of sessions
    parts: np.ndarray | None = None
    of_sessions: bool = False  # a row of the table is a user here: a session's history and its target
    labels: np.ndarray | None = None  # [R] place in label_names of what the table says of each, if asked for
    label_names: tuple[str, ...] = ()
    times: np.ndarray | None = None  # [R] seconds, if asked for and where the table has them

    @property
    def num_items(self):
        return len(self.item_ids)

    @property
    def num_users(self):
        return len(self.offsets) - 1

    @property
    def user_ids(self):
        """The table's id of every user."""
        return self.user_ids_of(np.arange(self.num_users))

    def user_ids_of(self, users):
        """The table's ids of these, by number."""
        ends = np.append(0, self.user_id_ends)
        return [
            self.user_id_bytes[a:b].tobytes().decode()
            for a, b in zip(ends[users].tolist(), ends[users + 1].tolist(), strict=True)
        ]

    def summary(self):
        users = "sessions" if self.of_sessions else "users"
        text = f"{self.num_users:,} {users}, {self.num_items:,} items, {len(self.items):,} interactions"
        if self.unusable:
            text += "; left out: " + ", ".join(f"{n:,} rows {why}" for why, n in self.unusable.items())
        return text


def read(paths, tables, label_column=None, with_times=False):
    """Read a table of interactions, or those of training, validation and test (or their cache).

    Rows are sorted by (timestamp, row of the file), so ties keep the file's order; without a time column, by
    row alone. Timestamps may be seconds, milliseconds, microseconds or nanoseconds, whole or not, or dates.
    Rows without an id or with an unreadable timestamp are left out and counted.

    Args:
        tables: TableFlags.
        label_column: one more that is read, or None.
        with_times: whether times are kept where the table has them; their order alone is kept in any case.

    Raises:
        InputError: a column is missing, or no row is usable.
    """
    told = told_columns(tables)
    more = ((label_column,) if label_column else ()) + (("times", with_times),) * with_times
    mark = fingerprint("interactions 4", told, tables.encoding, *more, *map(Path, paths))

    def build():
        from pixelrec_train.data.interaction_table import number_rows  # brings pandas and pyarrow with it

        return number_rows(paths, told, tables.encoding, label_column, with_times)

    # Earlier versions have left others under this mark, of the kind "interactions", whose facts held the ids.
    arrays, facts = cached(tables.cache_dir, "sequences", mark, build)
    item_ids = Ids(arrays.pop("item_id_bytes"), arrays.pop("item_id_offsets"))
    return Interactions(**arrays, **facts, item_ids=item_ids, fingerprint=mark)


def told_columns(tables):
    """{our name: the tables' own, or None} of TableFlags."""
    return {"item_id": tables.item_column, "user_id": tables.user_column, "timestamp": tables.time_column}


@dataclass(frozen=True)
class HeldOut:
    """Targets, and everything their users took before them; most splits have one per user."""

    users: np.ndarray  # [E]
    start: np.ndarray  # [E] history = items[start:end]
    end: np.ndarray  # [E]
    target: np.ndarray  # [E] item; -1 = nobody knows what the user took next
    items: np.ndarray  # the flat array of Interactions
    times: np.ndarray | None = None  # of `items`, in seconds, where they were asked for

    def __len__(self):
        return len(self.users)

    @property
    def labelled(self):
        """Whether every target is known; else these users can be predicted for, and not judged."""
        return bool((self.target >= 0).all())

    def history(self, e):
        return self.items[self.start[e] : self.end[e]]

    def times_of(self, users):
        """When the histories of these were taken, [n] seconds each; None where it is not known."""
        return None if self.times is None else [self.times[self.start[e] : self.end[e]] for e in users]

    def sample(self, count, seed):
        """`count` of them drawn without replacement, in their order; all where it is None or more."""
        if count is None or count >= len(self):
            return self
        drawn = np.random.default_rng(seed).permutation(len(self))[:count]
        drawn.sort()
        of_each = (x[drawn] for x in (self.users, self.start, self.end, self.target))
        return HeldOut(*of_each, self.items, self.times)


@dataclass(frozen=True)
class Taken:
    """What users took in training, oldest first: items[start[s]:end[s]] was taken by user users[s]."""

    users: np.ndarray  # [S], mostly every user once
    start: np.ndarray  # [S]
    end: np.ndarray  # [S], start where a user took nothing
    items: np.ndarray  # flat
    behind: np.ndarray | None = None  # [S] how many of the oldest are no target of a given row; None = one
    times: np.ndarray | None = None  # of `items`, in seconds, where they were asked for

    def pairs(self):
        """(users [n], items [n]) of all that was taken, whatever windows keep of it."""
        length = self.end - self.start
        first = np.cumsum(length) - length
        return np.repeat(self.users, length), self.items[
            np.arange(length.sum()) + np.repeat(self.start - first, length)
        ]

    def counts(self, num_items):
        """[num_items] how often each item was taken."""
        return np.bincount(self.pairs()[1], minlength=num_items)


@dataclass(frozen=True)
class Split:
    """Training windows, and what is held out."""

    taken: Taken
    windows: np.ndarray  # [Wn, 2] start, end into taken.items
    train_counts: np.ndarray  # [num_items] occurrences in the windows; 0 = a cold item
    valid: HeldOut
    test: HeldOut
    origin: str  # in words; of a file of rows with its fingerprint

    @property
    def popularity(self):
        """[num_items] how often each item was taken in training, whatever windows keep of it."""
        return self.taken.counts(len(self.train_counts))

    def judged(self, name, instead=NO_LABEL):
        """valid or test, for whoever needs its targets.

        Raises:
            InputError: it has none; instead: a sentence that says what to do, without its full stop.
        """
        held_out = getattr(self, name)
        if not held_out.labelled:
            raise InputError(
                f"--split_protocol last_item has no labelled {name} rows: their histories are all that users "
                f"took. {instead}."
            )
        return held_out

    @staticmethod
    def of(taken, held_out, num_items, max_seq_length, one_window_per_user=False, origin=""):
        """Cut what users took into windows of max_seq_length items.

        They are cut from the end, so a remainder falls off the oldest side; a user with fewer has one
        shorter window. Or only the newest window is kept. Windows of one item teach nothing and are left out.

        Args:
            held_out: {"valid": HeldOut, "test": HeldOut}
        """
        windows = cut_windows(taken.start, taken.end, max_seq_length, one_window_per_user)
        covered = np.zeros(len(taken.items) + 1, np.int64)
        # Windows do not overlap: +1 where one starts, -1 where it ends.
        np.add.at(covered, windows[:, 0], 1)
        np.add.at(covered, windows[:, 1], -1)
        counts = np.bincount(taken.items[np.cumsum(covered)[:-1] > 0], minlength=num_items)
        return Split(taken, windows, counts, **held_out, origin=origin)


def cut_windows(start, stop, size, newest_only=False):
    """[U] stretches -> [Wn, 2] windows of `size` items, the last ending at `stop`; shorter only if alone."""
    length = stop - start
    per_user = np.ones_like(length) if newest_only else np.maximum(length // size, 1)
    user = np.repeat(np.arange(len(start)), per_user)
    nth_from_end = np.repeat(np.cumsum(per_user), per_user) - 1 - np.arange(len(user))
    end = stop[user] - nth_from_end * size
    windows = np.stack([np.maximum(end - size, start[user]), end], axis=1)
    return windows[windows[:, 1] - windows[:, 0] >= 2]
