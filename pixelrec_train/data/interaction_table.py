"""Tables of interactions as arrays: numbered users and items, every user's items oldest first."""

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pixelrec_train.data.columns import about, check_label, find, find_columns
from pixelrec_train.data.item_rows import end_to_end
from pixelrec_train.data.tables import open_table
from pixelrec_train.errors import InputError

COLUMNS = ("item_id", "user_id", "timestamp")
FLAGS = ("--interaction_data", "--valid_data", "--test_data")
UNITS = {1e17: 1e9, 1e14: 1e6, 1e11: 1e3}  # above this a timestamp is in ns, us, ms; per second
DATE = r"^\s*\d{4}-\d\d"  # how one of ISO 8601 begins


def number_rows(paths, told, encoding, label_column=None, with_times=False):
    """(arrays, facts) of Interactions; see interactions.read for what is in them and what is refused.

    Args:
        paths: of one table, or of those of training, validation and test.
        told: {a name of COLUMNS: the tables' own name for it, or None}
        label_column: one more that is read, or None.
        with_times: whether arrays have "times", too, where the tables do.
    """
    tables = [open_table(path, encoding) for path in paths]
    if find(tables[0].names, "item_id_list"):
        check_label(label_column, tables[0])
        return number_sessions(tables, told)
    columns = [find_columns(table, COLUMNS, told, optional=("timestamp",)) for table in tables]
    refuse_some_without_times(tables, columns)
    more = [label_column] if label_column else []
    for table, found in zip(tables, columns, strict=True):
        check_label(label_column, table, found)
    items, users, seconds, labels, parts, notes = [], [], [], [], [], []
    unusable, padded = Counter(), Counter()
    for part, (table, found, flag_name) in enumerate(zip(tables, columns, FLAGS, strict=False)):
        for block in table.blocks([*found.values(), *more]):
            block, label = block[: len(found)], block[len(found) :]
            item, user, second, *label = usable_rows(*block, unusable=unusable, padded=padded, more=label)
            labels += map(pc.utf8_trim_whitespace, label)
            items.append(item)
            users.append(user)
            seconds.append(second)
            parts.append(np.full(len(item), part, np.int8))
        notes += about(table, found, flag_name)
        if "timestamp" not in found:
            notes.append(f"{flag_name}: no time column: the order of rows is the order of time")
    if padded:
        some = " and ".join(f"{n:,} {noun} ids" for noun, n in padded.items())
        notes.append(f"blanks around {some} are left out")
    if not any(map(len, items)):
        raise no_usable_row(tables[0], columns[0], unusable)
    # Each column's texts are forgotten once they are numbers: those of 10 M rows are 300 MB.
    items, item_ids = numbered(items)
    users, user_ids = numbered(users)
    pa.default_memory_pool().release_unused()
    seconds = np.concatenate(seconds)
    order = by_user_and_time(users, seconds)
    arrays = {"items": items[order], "offsets": offsets_of(np.bincount(users)), **of_ids(item_ids, user_ids)}
    facts = {"unusable": dict(unusable), "notes": notes}
    if with_times and "timestamp" in columns[0]:
        arrays["times"] = seconds[order]
    if len(paths) > 1:
        arrays["parts"] = np.concatenate(parts)[order]
    if more:
        numbers, names = numbered(labels)
        arrays["labels"], facts["label_names"] = numbers[order], names.to_pylist()
    return arrays, facts


def refuse_some_without_times(tables, columns):
    read = zip(tables, columns, strict=True)
    without = [table.path.name for table, found in read if "timestamp" not in found]
    if 0 < len(without) < len(tables):
        raise InputError(
            f"{' and '.join(without)} has no column timestamp, while the other tables have one. Name it with "
            f"--time_column, or leave times out of all: the order of rows is the order of time then."
        )


def usable_rows(items, users, times=None, *, unusable, padded, more=()):
    """(item ids, user ids, float64 seconds, *more) of the rows of a block that have the first three.

    Args:
        times: None = there are none, and all seconds are 0.
        more: further columns of these rows.
        unusable: Counter of why rows were left out.
        padded: Counter of the ids with blanks around them, which they lose: "item" and "user".
    """
    seconds = np.zeros(len(items)) if times is None else to_seconds(times)
    plain, reasons = {}, {}
    for noun, ids in (("item", items), ("user", users)):
        plain[noun], reasons[f"without {noun}_id"], blanks = trimmed(ids)
        if blanks.any():
            padded[noun] += int(blanks.sum())
    reasons["with an unreadable timestamp"] = ~np.isfinite(seconds)
    usable = np.ones(len(items), bool)
    for why, rows in reasons.items():
        if new := int((rows & usable).sum()):
            unusable[why] += new
            usable &= ~rows
    if usable.all():
        return *plain.values(), seconds, *more
    kept = pa.array(usable)
    return *(x.filter(kept) for x in plain.values()), seconds[usable], *(x.filter(kept) for x in more)


def trimmed(ids):
    """pyarrow strings -> (the same without blanks around, [n] bool: nothing is left, [n] bool: had blanks)"""
    plain = pc.utf8_trim_whitespace(ids)
    empty = pc.equal(plain, "").to_numpy(zero_copy_only=False)
    return plain, empty, pc.not_equal(ids, plain).to_numpy(zero_copy_only=False) & ~empty


def no_usable_row(table, found, unusable):
    why = ", ".join(f"{n:,} {reason}" for reason, n in unusable.items()) or "no row at all"
    time = (
        [row[0] for row in itertools.islice(table.rows([found["timestamp"]]), 1)]
        if "timestamp" in found
        else []
    )
    return InputError(
        f"{table.path} has no usable row ({why}). Each needs item_id and user_id; a timestamp is a number "
        f"of seconds or finer, or a date as 2018-10-02 11:03:00, found {time}."
    )


def number_sessions(tables, told):
    """The same of tables in which a row is a session: the items of its history, and the one taken next.

    Every row is a user of its own, who took its history and then its target.
    """
    sessions, users, parts, notes = [], [], [], []
    for part, (table, flag_name) in enumerate(zip(tables, FLAGS, strict=False)):
        found = find_columns(table, ("item_id", "user_id", "item_id_list"), told)
        notes += about(table, found, flag_name)
        for target, user, history in table.blocks(list(found.values())):
            taken = pc.utf8_trim_whitespace(pc.binary_join_element_wise(history, target, " "))
            sessions.append(pc.utf8_split_whitespace(taken))
            users.append(user)
            parts.append(np.full(len(user), part, np.int8))
    items, item_ids = numbered([block.flatten() for block in sessions])
    if not len(items) or pc.index(item_ids, "").as_py() >= 0:
        raise InputError(f"{tables[0].path} has a session without any item, or no session at all.")
    length = np.concatenate([pc.list_value_length(block).to_numpy() for block in sessions])
    arrays = {
        "items": items, "offsets": offsets_of(length), "parts": np.concatenate(parts),
        **of_ids(item_ids, pa.concat_arrays(users)),
    }  # fmt: skip
    facts = {"unusable": {}, "notes": notes, "of_sessions": True}
    return arrays, facts


def to_seconds(texts):
    """pyarrow strings -> float64 seconds; nan or infinite where a text is no time."""
    times = to_numbers(texts)
    return times / units_per_second(times)


def to_numbers(texts):
    """pyarrow strings -> float64 as they are written, dates in seconds; nan where a text is neither."""
    try:
        return pc.cast(texts, pa.float64()).to_numpy()
    except pa.ArrowInvalid:  # it refuses a whole block for one text that is no number, or has spaces around
        numbers = np.array([number(text) for text in texts.to_pylist()])
    dated = pc.match_substring_regex(texts, DATE).to_numpy(zero_copy_only=False)
    if dated.any():
        dates = pd.to_datetime(texts.filter(dated).to_pandas(), format="ISO8601", utc=True, errors="coerce")
        numbers[dated] = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return numbers


def units_per_second(times):
    """[R] timestamps -> [R] 1, 1e3, 1e6 or 1e9: whether they are in s, ms, us or ns, by their size."""
    magnitude, units = np.abs(times), np.ones(len(times))
    for above, per_second in sorted(UNITS.items()):
        units[magnitude > above] = per_second
    return units


def number(text):
    try:
        return float(text) if text.isascii() and "_" not in text else np.nan
    except ValueError:
        return np.nan


def numbered(blocks):
    """Blocks of ids -> ([R] int32 numbers from 0 in order of first rows, ids by number). Empties the list."""
    chunks = pa.chunked_array(blocks, pa.string()).dictionary_encode().chunks  # all with the same dictionary
    blocks.clear()
    if not chunks:
        return np.zeros(0, np.int32), pa.array([], pa.string())
    return np.concatenate([chunk.indices.to_numpy() for chunk in chunks]), chunks[-1].dictionary


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def of_ids(item_ids, user_ids):
    """{name: array} of Interactions' ids."""
    items, users = end_to_end(item_ids), end_to_end(user_ids)
    return {
        "item_id_bytes": items.characters, "item_id_offsets": items.offsets,
        "user_id_bytes": users.characters, "user_id_ends": users.offsets[1:],
    }  # fmt: skip


def by_user_and_time(users, seconds):
    """[R] rows in order of (user, time, row)."""
    by_time = np.argsort(seconds, kind="stable")
    # User and place in time as one number: sorting numbers takes a third of another stable argsort.
    order = users[by_time].astype(np.int64)
    order <<= 32
    order |= np.arange(len(order))
    order.sort()
    order &= 0xFFFFFFFF
    return by_time[order]
