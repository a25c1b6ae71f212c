"""Rows of Parquet files as samples: OpenOneRec's columns, in all the forms they are written in.

uuid, source and either messages (or message), a chat, or segments, a document: as JSON text or as lists of
objects. All other columns are left alone. A row number counts from 1 through the whole file.

Or OneRec-Think's: conversations, a chat, and type, which is its source. Without a column uuid the file's name
and the row stand for one.
"""

from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet

from pixelrec_train.data.samples.cells import CONTENT, Odd, Remarks, Row
from pixelrec_train.data.table_files import DAMAGES, damaged
from pixelrec_train.errors import InputError

BATCH_BYTES, MOST_ROWS = 1 << 24, 4096  # of a row group that are decoded at once


class Problem(NamedTuple):
    """Why a row is no sample, as one sentence."""

    path: object
    row: int
    what: str  # the same words for all of a kind
    detail: str = ""

    def __str__(self):
        return f"{self.path} row {self.row:,}: {self.what}{f' ({self.detail})' if self.detail else ''}."


def row_counts(path):
    """[rows of each row group]. Raises InputError where a file is damaged or lacks a column."""
    with opened(path) as file:
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def samples(path, group, remarks=None, first=0, stop=None):
    """Yields (row in the file, Sample or Problem) of each row of a row group, in their order.

    Memory: some BATCH_BYTES, or the longest row, whatever the size of the group.

    Args:
        remarks: Remarks, where parts that are no text and the like are counted.
        first, stop: of the group's rows, counted from 0, only these.

    Raises:
        InputError: the file is damaged or lacks a column.
    """
    remarks = Remarks() if remarks is None else remarks
    for row, cells in rows(path, group, ("uuid", "source", *CONTENT), first, stop):
        try:
            yield row, Row(path, row, remarks).sample(cells)
        except Odd as problem:
            yield row, Problem(path, row, *problem.args)


def rows(path, group, columns, first=0, stop=None):
    """Yields (row in the file, {column: value}) of a row group, or of its rows first … stop - 1; columns that
    the file lacks are left out."""
    with opened(path) as file:
        facts = [file.metadata.row_group(number) for number in range(group + 1)]
        row = 1 + sum(fact.num_rows for fact in facts[:-1])
        first, stop = row + first, row + (facts[-1].num_rows if stop is None else stop)
        size = max(1, min(MOST_ROWS, BATCH_BYTES * facts[-1].num_rows // (1 + facts[-1].total_byte_size)))
        places = {name: column_of(name, file.schema_arrow.names) for name in columns}
        places = {name: column for name, column in places.items() if column}
        names, without_uuid = list(places.values()), "uuid" in columns and "uuid" not in places
        try:
            for batch in file.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
                if row >= stop:
                    return
                skipped = min(batch.num_rows, max(first - row, 0))
                row += skipped
                batch = batch.slice(skipped, stop - row)
                lists = [values_of(batch[name]) for name in names]
                for values in zip(*lists, strict=True):
                    cells = dict(zip(places, values, strict=True))
                    if without_uuid:
                        cells["uuid"] = f"{Path(path).name} row {row}"
                    yield row, cells
                    row += 1
        except DAMAGES as error:
            raise damaged(path, error) from None


def opened(path):
    """The pyarrow.parquet.ParquetFile, with its columns checked."""
    try:
        # Buffered: a column of a row group is read as its batches are decoded, not as a whole.
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except DAMAGES as error:
        raise damaged(path, error) from None
    names = file.schema_arrow.names
    needed = ("source",) if "conversations" in names else ("uuid", "source")
    absent = [name for name in needed if column_of(name, names) is None]
    absent += ["messages or segments"] * (not set(CONTENT) & set(names))
    if absent:
        raise InputError(
            f"{path} has no column {' and no '.join(absent)}: it has {', '.join(names)[:200] or 'none'}. "
            f"Each row needs uuid, source, and messages or segments (or type and conversations)."
        )
    return file


def column_of(name, names):
    """The one of a file's columns that holds what we call so; None where none does."""
    if name == "source" and name not in names and "conversations" in names:
        name = "type"
    return name if name in names else None


def values_of(column):
    """A pyarrow array as a list; what is no UTF-8 becomes bytes that are none."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [value_of(scalar) for scalar in column]


def value_of(scalar):
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return b"\xff"
