"""What a view may see of a split: the sequences of one part, train, valid or test, and nothing else.

Whoever makes training samples is given the part that is taken in training; what is held out is not in there,
not even as a count.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.inputs import split_of
from pixelrec_train.errors import InputError

WHOLE = 1 << 30  # items of a window: windows are not what is wanted here


class Stretch(NamedTuple):
    """Items of one user, oldest first, and those taken next."""

    key: tuple  # names it within its part: user, which of their sequences, which stretch of that
    history: list[int]
    targets: list[int]
    history_labels: list[str] = []
    target_labels: list[str] = []


@dataclass(frozen=True)
class Part:
    """Sequence s is items[start[s]:end[s]]; in valid and test, target[s] is what its user took next.

    Nobody knows that where it is -1.
    """

    name: str
    keys: list[tuple]  # [S] the user's id, and which of their sequences it is
    start: np.ndarray  # [S]
    end: np.ndarray  # [S]
    items: np.ndarray  # flat
    target: np.ndarray | None  # [S]; None in training
    labels: np.ndarray | None = None  # of items, places in label_names
    target_labels: np.ndarray | None = None  # [S]
    label_names: tuple[str, ...] = ()
    behind: np.ndarray | None = None  # [S] how many of the oldest items are nobody's target; None = one
    origin: str = ""  # of the split, in words

    def nexts(self, history, samples) -> Iterator[Stretch]:
        """Each target once, behind at most `history` items; in training up to `samples` of a sequence, newest
        first, and of rows that somebody split those that the rows name."""
        if self.target is not None:
            yield from self.stretches(history, 1)
            return
        for s in range(len(self.keys)):
            start, end = int(self.start[s]), int(self.end[s])
            first = start + (1 if self.behind is None else max(1, int(self.behind[s])))
            for nth, target in enumerate(range(end - 1, max(first, end - samples) - 1, -1)):
                yield self.stretch(s, max(start, target - history), target, target + 1, nth)

    def stretches(self, history, targets, samples=1) -> Iterator[Stretch]:
        """What was taken next, behind at most `history` items.

        In valid and test that is the held-out item. In training it is the end of a sequence: at most
        `targets` items, and at most half of it. Up to `samples` of a sequence, newest first: the next one
        ends where the targets of the one before begin, so no item is a target twice.
        """
        for s in range(len(self.keys)):
            start, end = int(self.start[s]), int(self.end[s])
            if self.target is not None:
                yield self.stretch(s, max(start, end - history), end, end)
                continue
            for nth in range(samples):
                count = min(targets, (end - start) // 2)
                if not count:
                    break
                first = end - count
                yield self.stretch(s, max(start, first - history), first, end, nth)
                end = first

    def windows(self, size, samples=1) -> Iterator[Stretch]:
        """Whole sequences, cut to their newest `size` items; further ones of a sequence lie before them.

        In valid and test there is one of each sequence, and what is held out is its target.
        """
        for s in range(len(self.keys)):
            start, end = int(self.start[s]), int(self.end[s])
            for nth in range(samples if self.target is None else 1):
                first = max(start, end - size)
                if first == end:
                    break
                yield self.stretch(s, first, end, end, nth)
                end = first

    def stretch(self, s, first, middle, end, nth=0):
        """The items from first to middle, and those to end (or what is held out)."""
        key = (*self.keys[s], nth)
        history, targets = self.items[first:middle].tolist(), self.items[middle:end].tolist()
        if self.target is not None:
            targets = [int(self.target[s])] if self.target[s] >= 0 else []
        if self.labels is None:
            return Stretch(key, history, targets)
        before = [self.label_names[n] for n in self.labels[first:middle].tolist()]
        after = self.labels[middle:end].tolist() if self.target is None else [int(self.target_labels[s])]
        names = [self.label_names[n] for n in after]
        return Stretch(key, history, targets, before, names)


def part_of(name, read, data, labelled=False):
    """The Part of this name. read: Interactions, with or without labels; data: DataFlags.

    Args:
        labelled: whether it must say what users took next, where it is not training; else it may be read to
            predict that.

    Raises:
        InputError: the tables hold nothing of it, or nobody knows its targets, or a split of rows is to have
            labels.
    """
    split, users = split_of(read, data, WHOLE), user_names(read, data)
    if name != "train" and (labelled or read.labels is not None):
        split.judged(name)
    if read.labels is None:
        sequences, items, labels = of_name(split, name), None, None
    elif data.split_data:
        raise InputError(
            "--label_column is a column of --interaction_data, but the rows of --split_data name items "
            "alone. Leave one of them out."
        )
    else:  # once more, with the rows of the table in the place of items: they say item and label
        rows = np.arange(len(read.items))
        sequences = of_name(split_of(replace(read, items=rows), data, WHOLE), name)
        items, labels = np.asarray(read.items), np.asarray(read.labels)
    target, flat = getattr(sequences, "target", None), np.asarray(sequences.items)
    keys = numbered(users[user] for user in sequences.users.tolist())
    behind = getattr(sequences, "behind", None)
    part = Part(name, keys, sequences.start, sequences.end, flat, target, behind=behind, origin=split.origin)
    if labels is None:
        return part
    held_out = {} if target is None else {"target": items[target], "target_labels": labels[target]}
    named = tuple(read.label_names)
    return replace(part, items=items[flat], labels=labels[flat], label_names=named, **held_out)


def of_name(split, name):
    """What was Taken in training, or HeldOut."""
    return split.taken if name == "train" else getattr(split, name)


def user_names(read, data):
    """The tables' ids of the users that a Split numbers."""
    if data.split_data:
        from pixelrec_train.data.columns import find  # these bring pandas and pyarrow with them
        from pixelrec_train.data.tables import open_table

        table = open_table(data.split_data)
        return list(dict.fromkeys(user for (user,) in table.rows([find(table.names, "user_id")])))
    return list(dict.fromkeys(read.user_ids)) if read.of_sessions else read.user_ids


def numbered(names):
    """[(name, 0 for its first time, 1, …)]"""
    seen, found = Counter(), []
    for name in names:
        found.append((name, seen[name]))
        seen[name] += 1
    return found
