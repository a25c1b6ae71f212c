"""A split somebody else made: rows that say their part, tables of their own, or sessions.

split,user_id,item_id,history
train,A9,56,16 55                 after 16 and 55, user A9 took 56
test,A9,57,16 55 56 32            history: item ids, oldest first, with spaces between them
"""

from pathlib import Path

import numpy as np

from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.interactions import HeldOut, Split, Taken
from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_file

COLUMNS = ("split", "user_id", "item_id", "history")
PARTS = ("train", "valid", "test")
FEWEST_SAME = 10  # rows that say something about tables that hold the same


def read_split(path, interactions, max_seq_length, one_window_per_user=False):
    """The Split of a file of rows, over the items of the interactions; see of_rows.

    Raises:
        InputError: the file names an unknown part or item, or lacks rows of a part.
    """
    from pixelrec_train.data.columns import find_columns  # these bring pandas and pyarrow with them
    from pixelrec_train.data.tables import open_table

    number = {item_id: n for n, item_id in enumerate(interactions.item_ids)}
    table = open_table(existing_file(path, "--split_data"))
    columns = find_columns(table, COLUMNS, hint="Rename them in the file's first line")
    rows = []
    for row, (part, user_id, item_id, history) in enumerate(table.rows(list(columns.values())), 1):
        if part not in PARTS:
            raise InputError(f"--split_data {path}, row {row}: split is {part!r}, not {', '.join(PARTS)}.")
        ids = [*history.split(), item_id.strip()]
        unknown = [i for i in ids if i not in number]
        if unknown:
            raise InputError(
                f"--split_data {path}, row {row}: item {unknown[0]!r} is not in --interaction_data. (A "
                f"history is item ids with spaces between them.)"
            )
        rows.append((part, user_id, [number[i] for i in ids]))
    taken, held_out = of_rows(rows)
    origin = f"rows of {Path(path).name} ({fingerprint(Path(path))})"
    return split_of(
        taken, held_out, interactions, max_seq_length, one_window_per_user, origin, f"--split_data {path}"
    )


def split_tables(interactions, max_seq_length, one_window_per_user, origin):
    """The Split of interactions whose held-out rows are tables of their own.

    Every row of those is a target; its history is what its user took in the tables before (training, and
    for a test row validation) and not later than it. Rows without a history are left out.
    """
    parts, offsets = interactions.parts, interactions.offsets
    users = np.repeat(np.arange(interactions.num_users), np.diff(offsets))
    pairs = users * interactions.num_items + interactions.items
    held_out, later = {}, 0
    for part in (1, 2):
        items, place = only(interactions.items, parts < part)
        row = np.flatnonzero(parts == part)
        # A user's rows are in the order of time, then of tables: what stands before a target is no later.
        later += int((place[offsets[users[row] + 1]] - place[row]).sum())
        row = row[place[row] > place[offsets[users[row]]]]  # with a history
        refuse_same_rows(PARTS[part], np.isin(pairs[row], pairs[parts < part]))
        target = np.asarray(interactions.items[row])
        start, times = place[offsets[users[row]]], only_times(interactions, parts < part)
        held_out[PARTS[part]] = HeldOut(users[row], start, place[row], target, items, times)
    items, place = only(interactions.items, parts == 0)
    users, times = np.arange(interactions.num_users), only_times(interactions, parts == 0)
    taken = Taken(users, place[offsets[:-1]], place[offsets[1:]], items, times=times)
    origin += f"; left out of histories, as later than their target: {later:,} rows" * (later > 0)
    windows = max_seq_length, one_window_per_user
    return split_of(taken, held_out, interactions, *windows, origin, "--valid_data, --test_data")


def only(items, kept):
    """([K] the kept ones of [R] items, [R + 1] how many of them lie before each)."""
    return np.asarray(items[kept]), np.concatenate([[0], np.cumsum(kept)])


def only_times(interactions, kept):
    return None if interactions.times is None else np.asarray(interactions.times[kept])


def refuse_same_rows(part, taken_before):
    """taken_before: [T] bool of targets, whether their user took the item in the tables before."""
    # People do take things again, but not all of them.
    if len(taken_before) >= FEWEST_SAME and (known := taken_before.mean()) > 0.99:
        raise InputError(
            f"{known:.0%} of the rows of --{part}_data name an item that their user took in the tables "
            f"before: do those tables hold the same rows? Each row must stand in one of them."
        )


def split_sessions(interactions, max_seq_length, one_window_per_user, origin):
    """The Split of sessions, each a history and its target; see of_rows.

    Where they are one table, its last tenth by the order of rows is held out, half each.
    """
    parts = np.array(interactions.parts)
    if not parts.any():
        tenth = max(round(len(parts) / 10), 2)
        parts[-tenth:] = 1
        parts[-(tenth // 2) :] = 2
    taken = [PARTS[part] for part in parts]
    items = np.split(interactions.items, interactions.offsets[1:-1])
    rows = zip(taken, interactions.user_ids, (row.tolist() for row in items), strict=True)
    return split_of(
        *of_rows(rows), interactions, max_seq_length, one_window_per_user, origin, "the table of sessions"
    )


def of_rows(rows):
    """Rows (part, user id, [item, …, target]) -> (Taken, {"valid": HeldOut, "test": HeldOut}).

    A training row that goes on where the one before it of the same user ended makes that one longer; so a
    user's rows become one sequence, cut into windows as by Split.of, and every item in it but the first is
    a target. Any other row begins a sequence of its own. Held-out rows without a history are left out.
    """
    users, sequences, held_out = {}, {}, {"valid": [], "test": []}
    for part, user_id, items in rows:
        user = users.setdefault(user_id, len(users))
        if part != "train":
            held_out[part] += [(user, items)] if len(items) > 1 else []
            continue
        own = sequences.setdefault(user, [])
        if not own or not goes_on(last := own[-1][0], items):
            own.append((items, len(items) - 1))
        else:
            last[:] = items if len(last) < len(items) else [*last, items[-1]]
    own = [(user, *sequence) for user, listed in sequences.items() for sequence in listed]
    behind = np.array([first for _, _, first in own], np.int64)
    taken = Taken(*flat([(user, items) for user, items, _ in own]), behind)
    return taken, {part: held_out_rows(own) for part, own in held_out.items()}


def split_of(taken, held_out, interactions, max_seq_length, one_window_per_user, origin, source):
    """Split.of, or an InputError where a part of it is empty.

    source: in words, where the rows come from.
    """
    for part, rows in (("train", taken.users), *held_out.items()):
        if not len(rows):
            raise InputError(
                f"{source} holds no row of {part} with a history. It needs train, valid and test."
            )
    split = Split.of(
        taken, held_out, interactions.num_items, max_seq_length, one_window_per_user, origin=origin
    )
    if not len(split.windows):
        raise InputError(f"{source}: no training row has a history, so there is nothing to learn.")
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
