"""What is odd about the rows of an interaction CSV, and in which lines it is."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixelrec_train.config.reading import LAST_ITEM, LEAVE_LAST_TWO, TIME_811
from pixelrec_train.data.checks.remarks import SHOWN, Examples, LinedRows, Remark
from pixelrec_train.data.columns import find_columns
from pixelrec_train.data.interaction_table import COLUMNS, numbered, to_numbers, trimmed, units_per_second
from pixelrec_train.data.spelling import difference, simplified

YEAR_1990 = 631152000
DAY = 86400
UNIT_NAMES = {1.0: "seconds", 1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
SHORT_USERS = {  # interactions -> what becomes of a user who has so many; see data/protocols.py
    LEAVE_LAST_TWO: {
        1: "with 1 interaction, used nowhere",
        2: "with 2 interactions, used in the test split alone",
        3: "with 3 interactions, used in validation and test but not trained on",
    },
    LAST_ITEM: {
        1: "with 1 interaction, used in the test split alone",
        2: "with 2 interactions, used in validation and test but not trained on",
    },
    TIME_811: {1: "with 1 interaction, used nowhere"},
}


@dataclass(frozen=True)
class CheckedRows:
    """What was found in an interaction CSV, and where its items are."""

    remarks: list[Remark]
    rows: int
    lines: np.ndarray  # [R] of the rows that are used
    items: np.ndarray  # [R] number of their items
    item_ids: pa.StringArray  # by number
    days: tuple[str, str] | None  # of the first and the last row; None where timestamps are no dates

    def line_of_item(self, item_id):
        """The line in which an item occurs first."""
        number = pc.index(self.item_ids, item_id).as_py()
        return int(self.lines[np.argmax(self.items == number)])


def check_interactions(path, told=None, encoding=None, protocol=LEAVE_LAST_TWO):
    """Read the file row by row -> CheckedRows.

    Args:
        told: {a name of COLUMNS: the table's name for it, or None}
        protocol: of PROTOCOLS, by which it is split.

    Raises:
        InputError: it has no header.
    """
    rows = LinedRows(path, encoding)
    columns = find_columns(rows.table, COLUMNS, told, optional=("timestamp",))
    item_place, user_place, *time_place = [rows.header.index(column) for column in columns.values()]
    lines, marks, times, items, users, odd = [], [], [], [], [], []
    unreadable = Examples()
    for block_lines, block in rows.blocks():
        (item, no_item, padded_item), (user, no_user, padded_user) = (
            trimmed(pa.array([row[place] for row in block], pa.string()))
            for place in (item_place, user_place)
        )
        odd.append(np.array([no_item, no_user, padded_item | padded_user]))
        time_of_row = np.arange(len(block)) + sum(map(len, times)) + 0.0
        for place in time_place:
            text = pa.array([row[place] for row in block], pa.string())
            time_of_row = to_numbers(text)
            for i in np.flatnonzero(~np.isfinite(time_of_row)):
                unreadable.add(f"{block_lines[i]} ({text[i].as_py()!r})")
        lines.append(np.array(block_lines))
        marks.append(np.array([hash(tuple(row)) for row in block]))
        times.append(time_of_row)
        items.append(item)
        users.append(user)
    nothing = np.zeros(0, np.int64)
    lines, marks = np.concatenate([nothing, *lines]), np.concatenate([nothing, *marks])
    times = np.concatenate([np.zeros(0), *times])
    items, item_ids = numbered(items)
    users, user_ids = numbered(users)
    no_item, no_user, padded = np.concatenate([np.zeros((3, 0), bool), *odd], axis=1)
    usable = np.flatnonzero(np.isfinite(times) & ~no_item & ~no_user)
    kept = Rows(lines, marks, times, items, users).take(usable)
    remarks, days = about_times(kept) if time_place else ([], None)
    return CheckedRows(
        [
            *rows.remarks(),
            *at(lines[no_item]).remark("row", "without item_id, left out"),
            *at(lines[no_user]).remark("row", "without user_id, left out"),
            *unreadable.remark("row", "with an unreadable timestamp, left out"),
            *at(lines[padded]).remark("row", "with blanks around an id, left out"),
            *about_repeats(kept),
            *about_same_seconds(kept),
            *remarks,
            *about_ids("item", kept.items, item_ids, kept.lines),
            *about_ids("user", kept.users, user_ids, kept.lines),
            *about_short_users(kept, user_ids, SHORT_USERS[protocol]),
        ],
        len(lines), kept.lines, kept.items, item_ids, days,
    )  # fmt: skip


@dataclass(frozen=True)
class Rows:
    lines: np.ndarray  # [R]
    marks: np.ndarray  # [R] hash of the whole row, all columns
    times: np.ndarray  # [R] as written
    items: np.ndarray  # [R]
    users: np.ndarray  # [R]

    def take(self, rows):
        return Rows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def about_repeats(rows):
    """Rows that say again what an earlier row says."""
    order = np.argsort(rows.marks, kind="stable")
    again, first = repeats(order, np.diff(rows.marks[order]) == 0)
    twins = at(rows.lines[again], "=", rows.lines[first])
    yield from twins.remark("exact duplicate", "of an earlier row, kept")

    seconds = rows.times / units_per_second(rows.times)
    pair = rows.users.astype(np.int64) * (int(rows.items.max(initial=0)) + 1) + rows.items
    order = np.lexsort((seconds, pair))
    same = (np.diff(pair[order]) == 0) & (np.diff(seconds[order]) < 1)
    again_too, first = repeats(order, same)
    new = ~np.isin(again_too, again)
    twins = at(rows.lines[again_too[new]], "as", rows.lines[first[new]])
    yield from twins.remark("row", "with the user and the item of another one in the same second, kept")


def about_same_seconds(rows):
    """Rows whose place in their user's history is the file's doing, and no time's."""
    second = np.floor(rows.times / units_per_second(rows.times))
    order = np.lexsort((second, rows.users))
    same = (np.diff(rows.users[order]) == 0) & (np.diff(second[order]) == 0)
    shared = np.sort(order[np.append(same, False) | np.append(False, same)]) if len(order) else order
    share = len(shared) / max(len(order), 1)
    what = f"({share:.1%}) that share user and second with another: the file's order decides"
    yield from at(rows.lines[shared]).remark("row", what, harmless=True)


def at(lines, relation="", others=None):
    """Examples of lines: "12", or "12 (= 4)" with the line they are in relation to."""
    if others is None:
        return Examples(len(lines), lines[:SHOWN])
    pairs = zip(lines[:SHOWN], others, strict=False)
    return Examples(len(lines), [f"{line} ({relation} {other})" for line, other in pairs])


def repeats(order, same):
    """Rows that are the same as one before, and which one: two arrays, in the file's order.

    Args:
        order: [R] rows, equal ones behind each other.
        same: [R - 1] bool, whether a row of that order is the same as the one before it.
    """
    again = np.flatnonzero(same) + 1
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    first = order[starts[np.searchsorted(starts, again, side="right") - 1]]
    by_row = np.argsort(order[again])
    return order[again][by_row], first[by_row]


def about_times(rows):
    """(remarks, (first, last day)); most of the timestamps may be an order and no dates."""
    units = units_per_second(rows.times)
    seconds = rows.times / units
    old, future = seconds < YEAR_1990, seconds > time.time() + DAY
    if not len(seconds):
        return [], None
    if old.mean() > 0.5:
        low, high = seconds.min(), seconds.max()
        what = f"before 1990 (from {low:g} to {high:g}), so they are an order and no dates"
        return [Remark(int(old.sum()), "timestamp", what, harmless=True)], None
    remarks = []
    for odd, what in ((old, "before 1990"), (future, "in the future")):
        some = [f"{rows.lines[i]} ({day(seconds[i])})" for i in np.flatnonzero(odd)[:SHOWN]]
        remarks += Examples(int(odd.sum()), some).remark("timestamp", what)
    plain = ~(old | future)
    kinds, counts = np.unique(units[plain], return_counts=True)
    usual = UNIT_NAMES[kinds[counts.argmax()]] if len(kinds) else None
    for kind in kinds:
        if UNIT_NAMES[kind] != usual:
            what = f"in {UNIT_NAMES[kind]} while most are in {usual}, each read by its size"
            remarks += at(rows.lines[plain & (units == kind)]).remark("timestamp", what)
    return remarks, (day(seconds[plain].min()), day(seconds[plain].max())) if plain.any() else None


def day(seconds):
    try:
        return (datetime(1970, 1, 1) + timedelta(seconds=float(seconds))).strftime("%Y-%m-%d")
    except OverflowError:
        return f"{seconds:.3g} s"


def about_ids(noun, numbers, ids, lines):
    """Ids that a person would read as the same, and the loader takes for different ones."""
    used = np.unique(numbers)
    plain = np.unique(
        [simplified(text) for text in ids.take(pa.array(used)).to_pylist()], return_inverse=True
    )[1]
    order = np.argsort(plain, kind="stable")
    again, first = repeats(order, np.diff(plain[order]) == 0)
    found = {}
    for a, f in zip(used[again].tolist(), used[first].tolist(), strict=True):
        here, there = ids[a].as_py(), ids[f].as_py()
        found.setdefault(difference(here, there) or "several such things", []).append((a, f, here, there))
    for kind, pairs in found.items():
        some = []
        for a, f, here, there in pairs[:SHOWN]:
            line, line_there = (lines[np.argmax(numbers == n)] for n in (a, f))
            some.append(f"{here!r} in line {line} and {there!r} in {line_there}")
        what = f"that differ{'s' * (len(pairs) == 1)} from another only by {kind}"
        yield from Examples(len(pairs), some).remark(f"{noun} id", what, label="")


def about_short_users(rows, user_ids, becomes_of):
    users, first, counts = np.unique(rows.users, return_index=True, return_counts=True)
    for length, what in becomes_of.items():
        short = np.flatnonzero(counts == length)
        short = short[np.argsort(first[short])]
        shown = [(user_ids[users[u]].as_py(), rows.lines[first[u]]) for u in short[:SHOWN].tolist()]
        some = Examples(len(short), [f"{user_id!r} (line {line})" for user_id, line in shown])
        yield from some.remark("user", what, harmless=True, label="")
