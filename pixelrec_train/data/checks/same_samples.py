"""Rows that say what an earlier row says, by digests: uuids, whole samples, questions with several answers.

Memory: 32 bytes a row, and as much again while they are compared.
"""

import hashlib
import zlib

import numpy as np

from pixelrec_train.data.checks.found import SHOWN

NO_UUID = 0  # in the place of a hash
REPEATED = "uuid stands in an earlier row as well"
SAME = "messages or texts that stand in an earlier row as well"
SEVERAL = "ambiguous samples, whose question has other answers as well"
# Of a row; zeros where it has none. The answer is without its thought, which `thought` tells apart.
MARK = np.dtype([("question", "u8"), ("answer", "u8"), ("thought", "u4"), ("source", "u4")])
NO_MARK = (0, 0, 0, 0)


def digest(text):
    """8 bytes of it as a number; of 10 million texts, two fall together with a chance of 1 in 400,000."""
    if not isinstance(text, str):
        return NO_UUID
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mark_of(sample, answer):
    """A MARK as a tuple; what asks nothing is one answer.

    answer: the last one of a chat without its thought, or None.
    """
    source = zlib.crc32(sample.source.encode())
    if sample.messages is None:
        return 0, digest("".join(sample.segments)), 0, source
    roles = [message["role"] for message in sample.messages]
    last = len(roles) if answer is None else len(roles) - 1 - roles[::-1].index("assistant")
    said = [part for message in sample.messages[:last] for part in (message["role"], message["content"])]
    question = digest("\0".join(said))
    if answer is None:
        return 0, question, 0, source
    return question, digest(answer), zlib.crc32(sample.messages[last]["content"].encode()), source


def repeats(hashes, groups):
    """(number of rows whose uuid stands in an earlier row, first places).

    Args:
        hashes: [all rows] uint64, in the order of the groups.
    """
    order = np.argsort(hashes, kind="stable")
    values = hashes[order]
    again = np.flatnonzero((values[1:] == values[:-1]) & (values[1:] != NO_UUID))
    first = again[np.argsort(order[again + 1])[:SHOWN]]
    places = [f"{place_of(order[i + 1], groups)} (= {place_of(order[i], groups)})" for i in first]
    return len(again), places


def place_of(number, groups):
    """ "FILE row N" of a row of all groups together."""
    begins = [group.begin for group in groups]
    group = groups[int(np.searchsorted(begins, number, side="right")) - 1]
    before = sum(g.rows for g in groups if g.path == group.path and g.number < group.number)
    return f"{group.path} row {before + int(number) - group.begin + 1:,}"


def notes(marks, groups, sources):
    """Yields (source, what, count, first place) of rows that say the same, and of questions with several
    answers.

    Args:
        marks: [all rows] MARK, in the order of the groups.
        sources: names.
    """
    names = {zlib.crc32(name.encode()): name for name in sources}
    keys = [marks[name] for name in ("question", "answer", "thought")]
    order = np.lexsort(keys[::-1])  # stable: of equal ones the earlier comes first
    question, answer, thought = (key[order] for key in keys)
    is_row = (question != 0) | (answer != 0)
    goes_on = question[1:] == question[:-1]  # with the question of the one before
    same_answer = answer[1:] == answer[:-1]
    same = np.flatnonzero(goes_on & same_answer & (thought[1:] == thought[:-1]) & is_row[1:])
    twins = order[same + 1], order[same]
    yield from by_source(marks, *twins, SAME, "=", names, groups)

    asks = (question != 0) & (answer != 0)
    changes = np.flatnonzero(goes_on & ~same_answer & asks[1:] & asks[:-1]) + 1
    begins = np.concatenate([[True], ~goes_on]) if len(order) else np.zeros(0, bool)
    nth = np.cumsum(begins) - 1  # which question a row of `order` asks
    unsure = np.isin(nth, nth[changes]) & asks
    first, rows = changes[np.unique(nth[changes], return_index=True)[1]], order[unsure]
    own = np.searchsorted(nth[first], nth[unsure])
    one, other = order[begins][nth[first]][own], order[first][own]
    beside = np.where(marks["answer"][rows] == marks["answer"][one], other, one)
    yield from by_source(marks, rows, beside, SEVERAL, "beside", names, groups)


def by_source(marks, rows, others, what, relation, names, groups):
    """One of each source, with the first of its rows and the row it goes with."""
    by_row = np.argsort(rows, kind="stable")
    rows, others = rows[by_row], others[by_row]
    kinds, first, counts = np.unique(marks["source"][rows], return_index=True, return_counts=True)
    for kind, place, count in sorted(zip(kinds.tolist(), first, counts.tolist(), strict=True)):
        where = f"{place_of(rows[place], groups)} ({relation} {place_of(others[place], groups)})"
        yield names[kind], what, count, where
