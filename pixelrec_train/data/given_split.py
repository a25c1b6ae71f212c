"""A split somebody else made: a CSV says which item a user took next, after which history, and in which part.

split,user_id,item_id,history
train,A9,56,16 55                 after 16 and 55, user A9 took 56
test,A9,57,16 55 56 32            history: item ids, oldest first, with spaces between them
"""

from pathlib import Path

import numpy as np

from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.interactions import HeldOut, Split, Taken
from pixelrec_train.data.tables import read_rows
from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_file

COLUMNS = ("split", "user_id", "item_id", "history")
PARTS = ("train", "valid", "test")


def read_split(path, interactions, max_seq_length, one_window_per_user=False):
    """The Split of a file of rows, over the items of the interactions.

    A training row that goes on where the one before it of the same user ended makes that one longer; so a
    user's rows become one sequence, cut into windows as by Split.of, and every item in it but the first is
    a target. Any other row begins a sequence of its own. Held-out rows without a history are left out.

    Raises:
        InputError: the file names an unknown part or item, or lacks rows of a part.
    """
    number = {item_id: n for n, item_id in enumerate(interactions.item_ids)}
    users, sequences, held_out = {}, {}, {"valid": [], "test": []}
    for row, (part, user_id, item_id, history) in enumerate(
        read_rows(existing_file(path, "--split_data"), COLUMNS), 1
    ):
        if part not in PARTS:
            raise InputError(f"--split_data {path}, row {row}: split is {part!r}, not {', '.join(PARTS)}.")
        ids = [*history.split(), item_id]
        unknown = [i for i in ids if i not in number]
        if unknown:
            raise InputError(
                f"--split_data {path}, row {row}: item {unknown[0]!r} is not in --interaction_data. (A "
                f"history is item ids with spaces between them.)"
            )
        items, user = [number[i] for i in ids], users.setdefault(user_id, len(users))
        if part != "train":
            held_out[part] += [(user, items)] if history.strip() else []
        elif not goes_on(last := sequences.setdefault(user, [[]])[-1], items):
            sequences[user].append(items)
        else:
            last[:] = items if len(last) < len(items) else [*last, items[-1]]
    for part, rows in (("train", sequences), *held_out.items()):
        if not rows:
            raise InputError(
                f"--split_data {path} holds no row of {part} with a history. It needs train, valid and test."
            )
    taken = Taken(*flat([(user, items) for user, own in sequences.items() for items in own]))
    parts = {part: held_out_rows(rows) for part, rows in held_out.items()}
    origin = f"rows of {Path(path).name} ({fingerprint(Path(path))})"
    split = Split.of(taken, parts, interactions.num_items, max_seq_length, one_window_per_user, origin=origin)
    if not len(split.windows):
        raise InputError(f"--split_data {path}: no training row has a history, so there is nothing to learn.")
    return split


def goes_on(last, items):
    """Whether a history with its target, items, is the sequence `last` with more at its end."""
    if len(last) < len(items):
        return items[: len(last)] == last
    return last[-len(items) + 1 :] == items[:-1] and len(items) > 1


def flat(rows):
    """[(user, items)] -> (users [S], start [S], end [S], items)"""
    length = np.array([len(items) for _, items in rows], np.int64)
    users = np.array([user for user, _ in rows], np.int64)
    items = np.array([item for _, items in rows for item in items], np.int32)
    end = np.cumsum(length)
    return users, end - length, end, items


def held_out_rows(rows):
    """The last item of each row is its target."""
    users, start, end, items = flat(rows)
    return HeldOut(users, start, end - 1, items[end - 1], items)
