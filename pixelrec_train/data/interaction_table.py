"""Tables of interactions as arrays: numbered users and items, every user's items oldest first."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pixelrec_train.data.columns import about, find, find_columns
from pixelrec_train.data.tables import open_table
from pixelrec_train.errors import InputError

COLUMNS = ("item_id", "user_id", "timestamp")
FLAGS = ("--interaction_data", "--valid_data", "--test_data")
UNITS = {1e17: 1e9, 1e14: 1e6, 1e11: 1e3}  # above this a timestamp is in ns, us, ms; per second
DATE = r"^\s*\d{4}-\d\d"  # how one of ISO 8601 begins


def number_rows(paths, told, encoding):
    """(arrays, facts) of Interactions; see interactions.read for what is in them and what is refused.

    Args:
        paths: of one table, or of those of training, validation and test.
        told: {a name of COLUMNS: the tables' own name for it, or None}
    """
    tables = [open_table(path, encoding) for path in paths]
    if find(tables[0].names, "item_id_list"):
        return number_sessions(tables, told)
    items, users, seconds, lengths, notes, first_time = [], [], [], [], [], []
    for table, flag_name in zip(tables, FLAGS, strict=False):
        found = find_columns(table, COLUMNS, told, optional=("timestamp",))
        rows = 0
        for item, user, *time in table.blocks(list(found.values())):
            items.append(item)
            users.append(user)
            seconds.append(to_seconds(time[0]) if time else np.arange(rows, rows + len(item), dtype=float))
            first_time = first_time or [text.as_py() for text in time[:1] for text in text[:1]]
            rows += len(item)
        lengths.append(rows)
        notes += about(table, found, flag_name)
        if "timestamp" not in found:
            notes.append(f"{flag_name}: no time column: the order of rows is the order of time")
    # Each column's texts are forgotten once they are numbers: those of 10 M rows are 300 MB.
    items, item_ids, padded = numbered(items)
    users, user_ids, also_padded = numbered(users)
    pa.default_memory_pool().release_unused()
    notes += about_blanks(padded, also_padded)
    seconds = np.concatenate([*seconds, np.zeros(0)])
    parts = np.repeat(np.arange(len(paths), dtype=np.int8), lengths)

    reasons = {
        "without item_id": blank(items, item_ids),
        "without user_id": blank(users, user_ids),
        "with an unreadable timestamp": ~np.isfinite(seconds),
    }
    unusable, usable = {}, np.ones(len(seconds), bool)
    for why, rows in reasons.items():
        unusable[why] = int((rows & usable).sum())
        usable &= ~rows
    unusable = {why: n for why, n in unusable.items() if n}
    if not usable.any():
        why = ", ".join(f"{n:,} {reason}" for reason, n in unusable.items()) or "no row at all"
        raise InputError(
            f"{paths[0]} has no usable row ({why}). Each needs item_id and user_id; a timestamp is a number "
            f"of seconds or finer, or a date as 2018-10-02 11:03:00, found {first_time}."
        )
    if unusable:
        seconds, parts = seconds[usable], parts[usable]
        items, item_ids = numbered_again(items[usable], item_ids)
        users, user_ids = numbered_again(users[usable], user_ids)
    order = by_user_part_and_time(users, parts, seconds)
    arrays = {
        "items": items[order],
        "offsets": np.concatenate([[0], np.cumsum(np.bincount(users))]).astype(np.int64),
        **end_to_end(user_ids),
    }
    if len(paths) > 1:
        arrays["parts"] = parts[order]
    return arrays, {"item_ids": item_ids.to_pylist(), "unusable": unusable, "notes": notes}


def number_sessions(tables, told):
    """The same of tables in which a row is a session: the items of its history, and the one taken next.

    Every row is a user of its own, who took its history and then its target.
    """
    sessions, users, lengths, notes = [], [], [], []
    for table, flag_name in zip(tables, FLAGS, strict=False):
        found = find_columns(table, ("item_id", "user_id", "item_id_list"), told)
        rows = 0
        for target, user, history in table.blocks(list(found.values())):
            taken = pc.utf8_trim_whitespace(pc.binary_join_element_wise(history, target, " "))
            sessions.append(pc.utf8_split_whitespace(taken))
            users.append(user)
            rows += len(user)
        lengths.append(rows)
        notes += about(table, found, flag_name)
    items, item_ids, _ = numbered([block.flatten() for block in sessions])
    if not len(items) or pc.index(item_ids, "").as_py() >= 0:
        raise InputError(f"{tables[0].path} has a session without any item, or no session at all.")
    length = np.concatenate([pc.list_value_length(block).to_numpy() for block in sessions])
    arrays = {
        "items": items,
        "offsets": np.concatenate([[0], np.cumsum(length)]).astype(np.int64),
        "parts": np.repeat(np.arange(len(tables), dtype=np.int8), lengths),
        **end_to_end(pa.concat_arrays(users)),
    }
    facts = {"item_ids": item_ids.to_pylist(), "unusable": {}, "notes": notes, "of_sessions": True}
    return arrays, facts


def about_blanks(of_items, of_users):
    counts = [
        f"{rows.sum():,} {noun} ids" for rows, noun in ((of_items, "item"), (of_users, "user")) if rows.any()
    ]
    return [f"blanks around {' and '.join(counts)} are left out"] if counts else []


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
    """Blocks of ids -> numbers and names of them. Empties the list.

    Returns:
        [R] int32 numbers from 0 in order of first rows; the ids in that order, without the blanks around
        them; [R] bool, whether there were some.
    """
    chunks = pa.chunked_array(blocks, pa.string()).dictionary_encode().chunks  # all with the same dictionary
    blocks.clear()
    if not chunks:
        return np.zeros(0, np.int32), pa.array([], pa.string()), np.zeros(0, bool)
    numbers, ids = np.concatenate([chunk.indices.to_numpy() for chunk in chunks]), chunks[-1].dictionary
    plain = pc.utf8_trim_whitespace(ids)
    padded = pc.not_equal(ids, plain).to_numpy(zero_copy_only=False)
    if not padded.any():
        return numbers, ids, np.zeros(len(numbers), bool)
    again = plain.dictionary_encode()
    padded &= pc.not_equal(plain, "").to_numpy(zero_copy_only=False)
    return again.indices.to_numpy()[numbers], again.dictionary, padded[numbers]


def numbered_again(numbers, ids):
    """The same for rows of which some are gone, and with them perhaps the first or the last of an id."""
    again = pa.array(numbers).dictionary_encode()
    return again.indices.to_numpy(), ids.take(again.dictionary)


def blank(numbers, ids):
    """[R] bool: rows without an id."""
    return numbers == pc.index(ids, "").as_py()


def end_to_end(user_ids):
    """{name: array} of Interactions' user ids."""
    _, ends, characters = user_ids.buffers()  # Arrow keeps them end to end in UTF-8, as we do
    ends = np.frombuffer(ends, np.int32, len(user_ids) + 1)[1:].astype(np.int64)
    return {"user_id_bytes": np.frombuffer(characters, np.uint8, ends[-1]), "user_id_ends": ends}


def by_user_part_and_time(users, parts, seconds):
    """[R] rows in order of (user, part, time, row); parts are numbers below 4."""
    by_time = np.argsort(seconds, kind="stable")
    # User, part and place in time as one number: sorting numbers takes a third of another stable argsort.
    order = users[by_time].astype(np.int64)
    order <<= 2
    order |= parts[by_time]
    order <<= 32
    order |= np.arange(len(order))
    order.sort()
    order &= 0xFFFFFFFF
    return by_time[order]
