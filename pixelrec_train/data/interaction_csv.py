"""An interaction CSV as arrays: numbered users and items, every user's items oldest first."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixelrec_train.data.tables import read_blocks
from pixelrec_train.errors import InputError

COLUMNS = ("item_id", "user_id", "timestamp")
UNITS = {1e17: 1e9, 1e14: 1e6, 1e11: 1e3}  # above this a timestamp is in ns, us, ms; per second


def number_rows(path):
    """(arrays, facts) of Interactions; see interactions.read for what is in them and what is refused."""
    items, users, seconds, first_time = [], [], [], []
    for block in read_blocks(path, COLUMNS):
        items.append(block["item_id"])
        users.append(block["user_id"])
        seconds.append(to_seconds(block["timestamp"]))
        first_time = first_time or block["timestamp"].slice(0, 1).to_pylist()
    # Each column's texts are forgotten once they are numbers: those of 10 M rows are 300 MB.
    items, item_ids = numbered(items)
    users, user_ids = numbered(users)
    pa.default_memory_pool().release_unused()
    seconds = np.concatenate([*seconds, np.zeros(0)])

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
            f"{path} has no usable row ({why}). Each needs {', '.join(COLUMNS)}; a timestamp is a number "
            f"of seconds or finer, found {first_time}."
        )
    if unusable:
        seconds = seconds[usable]
        items, item_ids = numbered_again(items[usable], item_ids)
        users, user_ids = numbered_again(users[usable], user_ids)

    _, ends, characters = user_ids.buffers()  # Arrow keeps them end to end in UTF-8, as we do
    ends = np.frombuffer(ends, np.int32, len(user_ids) + 1)[1:].astype(np.int64)
    arrays = {
        "items": items[by_user_and_time(users, seconds)],
        "offsets": np.concatenate([[0], np.cumsum(np.bincount(users))]).astype(np.int64),
        "user_id_bytes": np.frombuffer(characters, np.uint8, ends[-1]),
        "user_id_ends": ends,
    }
    return arrays, {"item_ids": item_ids.to_pylist(), "unusable": unusable}


def to_seconds(texts):
    """pyarrow strings -> float64 seconds; nan or infinite where the text is no number."""
    times = to_numbers(texts)
    return times / units_per_second(times)


def to_numbers(texts):
    """pyarrow strings -> float64 as they are written; nan where the text is no number."""
    try:
        return pc.cast(texts, pa.float64()).to_numpy()
    except pa.ArrowInvalid:  # it refuses a whole block for one text that is no number, or has spaces around
        return np.array([number(text) for text in texts.to_pylist()])


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
    """Blocks of ids -> ([R] int32 numbers from 0 in order of first rows, the ids in that order).

    Empties the list.
    """
    chunks = pa.chunked_array(blocks, pa.string()).dictionary_encode().chunks  # all with the same dictionary
    blocks.clear()
    if not chunks:
        return np.zeros(0, np.int32), pa.array([], pa.string())
    return np.concatenate([chunk.indices.to_numpy() for chunk in chunks]), chunks[-1].dictionary


def numbered_again(numbers, ids):
    """The same for rows of which some are gone, and with them perhaps the first or the last of an id."""
    again = pa.array(numbers).dictionary_encode()
    return again.indices.to_numpy(), ids.take(again.dictionary)


def blank(numbers, ids):
    """[R] bool: rows whose id is empty or white space."""
    return np.isin(numbers, [i for i, text in enumerate(ids.to_pylist()) if not text.strip()])


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
