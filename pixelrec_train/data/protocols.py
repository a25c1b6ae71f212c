"""What is held out of one table where no file says it: the protocols of --split_protocol, by name."""

from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from pixelrec_train.config.reading import LAST_ITEM, TIME_811
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.given_split import split_of as checked_split
from pixelrec_train.data.interactions import HeldOut, Split, Taken
from pixelrec_train.errors import InputError

LAST_TWO = "everybody's last two items are held out"
LAST_ONE = (
    'last_item: the last item of every user is validation, as OneRec-Think\'s "val"; test has no labels'
)
YEAR_1990, FAR = 631152000, 1e11  # seconds


def split_by(protocol, interactions, table, max_seq_length, one_window_per_user=False):
    """The Split of Interactions of one table by a protocol of PROTOCOLS.

    table: the file they were read from.
    """
    windows = max_seq_length, one_window_per_user
    if protocol == TIME_811:
        return time_811(interactions, table, *windows)
    return (last_item_out if protocol == LAST_ITEM else leave_last_two_out)(interactions, *windows)


def taken_by(protocol, interactions, table):
    """Taken in training by a protocol, also where nobody took enough to train on."""
    if protocol == TIME_811:
        return time_811(interactions, table, 2).taken
    return before_last(interactions, 1 if protocol == LAST_ITEM else 2)


def leave_last_two_out(interactions, max_seq_length, one_window_per_user=False):
    """Last item = test target, second-last = validation target, the rest = training, see Split.of.

    Held-out targets without any history are left out.

    Source: HLLM (arXiv:2409.12740), as its code does it with data_split=True (or False).

    Raises:
        InputError: no user has the four items a training step needs.
    """
    held_out = {"valid": held_back(interactions, 2), "test": held_back(interactions, 1)}
    return split_before(interactions, 2, held_out, max_seq_length, one_window_per_user, LAST_TWO)


def last_item_out(interactions, max_seq_length, one_window_per_user=False):
    """Last item = validation target, the rest = training; test = behind all items, without a target.

    Source: OneRec-Think's public pipeline, which calls these "val" and "test".

    Raises:
        InputError: no user has the three items a training step needs.
    """
    start, stop = interactions.offsets[:-1], interactions.offsets[1:]
    users, nobody_knows = np.arange(interactions.num_users), np.full(interactions.num_users, -1)
    unlabelled = HeldOut(users, start, stop, nobody_knows, interactions.items, interactions.times)
    held_out = {"valid": held_back(interactions, 1), "test": unlabelled}
    return split_before(interactions, 1, held_out, max_seq_length, one_window_per_user, LAST_ONE)


def held_back(interactions, place):
    """HeldOut of every user's last item (place 1), second-last (2), …, with at least one item before it."""
    items, start, end = interactions.items, interactions.offsets[:-1], interactions.offsets[1:] - place
    kept = end > start
    users = np.arange(interactions.num_users)
    target = np.asarray(items[end[kept]])
    return HeldOut(users[kept], start[kept], end[kept], target, items, interactions.times)


def split_before(interactions, count, held_out, max_seq_length, one_window_per_user, origin):
    """Split.of all but every user's last `count` items, or an InputError where nobody took enough."""
    taken, num_items = before_last(interactions, count), interactions.num_items
    split = Split.of(taken, held_out, num_items, max_seq_length, one_window_per_user, origin)
    if not len(split.windows):
        items = {1: "an item is", 2: "two items are"}[count]
        raise InputError(
            f"no user has {count + 2} interactions, the least that leaves a training pair after {items} held "
            f"out ({interactions.summary()})."
        )
    return split


def before_last(interactions, count):
    """Taken: all but every user's last `count` items."""
    start, stop = interactions.offsets[:-1], interactions.offsets[1:]
    end = np.maximum(stop - count, start)
    users = np.arange(interactions.num_users)
    return Taken(users, start, end, interactions.items, times=interactions.times)


def time_811(interactions, table, max_seq_length, one_window_per_user=False):
    """Every item but a user's first is a row: a target behind all that its user took before.

    The rows of all users in the order of their targets' times, ties as users and their items lie in the
    table: the first 8 tenths are training, one tenth validation, the rest test. So what a user took in
    training is the beginning of their items, none of it later than the last training target; a user without
    a training row has taken nothing. Other users' targets of that very time may be held out.

    Source: MiniOneRec's preparation of Amazon's reviews; its histories are cut to 10 items, ours where they
    are read (--max_seq_length, --history).

    Raises:
        InputError: there are no times, or too few rows for three parts.
    """
    if interactions.times is None:
        raise InputError(
            f"--split_protocol {TIME_811} goes by time, but {table} has no column timestamp. Name it with "
            f"--time_column."
        )
    items, times, first = interactions.items, interactions.times, interactions.offsets[:-1]
    user = np.repeat(np.arange(interactions.num_users), np.diff(interactions.offsets))
    rows = np.flatnonzero(np.arange(len(items)) > first[user])  # those with a history
    rows = rows[np.argsort(times[rows], kind="stable")]
    train, *parts = np.split(rows, [len(rows) * 8 // 10, len(rows) * 9 // 10])
    held_out = {
        name: HeldOut(user[part], first[user[part]], part, np.asarray(items[part]), items, times)
        for name, part in zip(("valid", "test"), parts, strict=True)
    }
    targets = np.bincount(user[train], minlength=interactions.num_users)
    end = first + targets + (targets > 0)
    taken = Taken(np.arange(interactions.num_users), first, end, items, times=times)
    ends = [
        f"{name} ends {when(times[part[-1]])}"
        for name, part in (("training", train), ("validation", parts[0]))
        if len(part)
    ]
    origin = (
        f"time_811: rows of all users by time, 8:1:1, as MiniOneRec's; {', '.join(ends)}; of "
        f"{Path(table).name} ({fingerprint(Path(table))})"
    )
    source = f"--split_protocol {TIME_811}: {table}"
    return checked_split(taken, held_out, interactions, max_seq_length, one_window_per_user, origin, source)


def when(second):
    """A time in words: its day, unless times are an order and no dates."""
    if YEAR_1990 < second < FAR:
        return f"{datetime.fromtimestamp(float(second), timezone.utc):%Y-%m-%d}"
    return f"at {second:g}"
