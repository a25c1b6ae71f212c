"""Which rows of a table are of which items, for tables of any size: 40 bytes an item, none a row.

Ids are compared by hashes, sorted; texts alike in them are looked at themselves, so the answer is exact.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixelrec_train.data.ids import Ids

AT_ONCE = 1 << 16  # ids that are compared together


class FirstRows:
    """The rows of a table that are the first of an item, block by block in the table's order.

    there: [num_items] bool: the items with a row, of those read so far.
    others: rows of no item, or of one that had a row before.
    """

    def __init__(self, table, columns, item_ids):
        """columns: that of the ids, and others; item_ids: each once."""
        self.table, self.columns, self.places = table, columns, Places(item_ids)
        self.there, self.others = np.zeros(len(item_ids), bool), 0

    def __iter__(self):
        """([n] numbers of items, the other columns of their rows, n strings each)"""
        for ids, *values in self.table.blocks(self.columns):
            numbers = self.places.of(pc.utf8_trim_whitespace(ids))
            known = np.flatnonzero(numbers >= 0)
            new = known[~self.there[numbers[known]]]
            new = new[np.sort(np.unique(numbers[new], return_index=True)[1])]
            self.there[numbers[new]] = True
            self.others += len(numbers) - len(new)
            if len(new) < len(numbers):
                values = [column.take(pa.array(new)) for column in values]
            yield numbers[new], [column.to_pylist() for column in values]


class Places:
    """The place of a text among ids, each of which is there once."""

    def __init__(self, ids):
        self.ids, self.next, self.order, self.hashes = arrow(Ids.of(ids)), 0, None, None

    def of(self, texts):
        """pyarrow strings -> [n] places, -1 of those that are no id.

        Mostly a table is in the order of the ids: they are looked up by hash where it is not.
        """
        texts = texts.cast(pa.large_string())
        if self.ids.slice(self.next, len(texts)).equals(texts):
            places = np.arange(self.next, self.next + len(texts))
        else:
            places = self.looked_up(texts)
        self.next = int(places.max(initial=-1)) + 1
        return places

    def looked_up(self, texts):
        if self.hashes is None:
            self.hashes = hashes_of(self.ids)
            self.order = np.argsort(self.hashes)
            self.hashes.sort()
        found, wanted = np.full(len(texts), -1), hashes_of(texts)
        rows = np.argsort(wanted)  # searching for neighbours one after the other is several times as fast
        at = np.empty(len(texts), np.int64)
        at[rows] = np.searchsorted(self.hashes, wanted[rows])
        while len(rows := rows[at[rows] < len(self.hashes)]):
            rows = rows[self.hashes[at[rows]] == wanted[rows]]
            place = self.order[at[rows]]
            equal = pc.equal(self.ids.take(pa.array(place)), texts.take(pa.array(rows))).to_numpy(False)
            found[rows[equal]] = place[equal]
            rows = rows[~equal]  # another id with the same hash
            at[rows] += 1
        return found


def distinct(blocks):
    """Ids of blocks of pyarrow strings, each once, in the order of their first rows; "" is none."""
    texts = pa.chunked_array([block.filter(pc.not_equal(block, "")) for block in blocks], pa.string())
    texts = texts.cast(pa.large_string()).combine_chunks()
    pa.default_memory_pool().release_unused()  # of the blocks
    again = repeated(texts)
    return end_to_end(texts.filter(pa.array(~again)) if again.any() else texts)


def repeated(texts):
    """[n] bool: whether an equal text stands before this one."""
    hashes = hashes_of(texts)
    order = np.argsort(hashes, kind="stable")  # of equal texts the first stays in front
    hashes.sort()
    alike = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
    again, unequal = np.zeros(len(texts), bool), set()
    for first in range(0, len(alike), AT_ONCE):
        here = alike[first : first + AT_ONCE]
        before, place = (texts.take(pa.array(order[n])) for n in (here - 1, here))
        equal = pc.equal(before, place).to_numpy(False)
        again[order[here[equal]]] = True
        unequal.update(hashes[here[~equal]].tolist())
    for value in unequal:  # of texts that differ: hardly ever one
        seen = set()
        first, stop = np.searchsorted(hashes, value), np.searchsorted(hashes, value, "right")
        for row in order[first:stop].tolist():
            text = texts[row].as_py()
            again[row] = text in seen
            seen.add(text)
    return again


def hashes_of(texts):
    """pyarrow strings -> [n] int64, the same of equal texts within this process."""
    found = np.empty(len(texts), np.int64)
    for first in range(0, len(texts), AT_ONCE):
        part = texts.slice(first, AT_ONCE)
        found[first : first + AT_ONCE] = np.fromiter(map(hash, part.to_pylist()), np.int64, len(part))
    return found


def end_to_end(texts):
    """pyarrow strings -> Ids, where they lie."""
    texts = texts.cast(pa.large_string())
    if not len(texts):
        return Ids.of([])
    _, offsets, characters = texts.buffers()
    offsets = np.frombuffer(offsets, np.int64)[texts.offset :][: len(texts) + 1]
    return Ids(np.frombuffer(characters or b"", np.uint8)[: offsets[-1]], offsets)


def arrow(ids):
    """Ids as pyarrow strings, where they lie."""
    return pa.LargeStringArray.from_buffers(len(ids), pa.py_buffer(ids.offsets), pa.py_buffer(ids.characters))
