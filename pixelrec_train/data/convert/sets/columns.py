"""Data sets whose interactions are a table with named columns: CSV or Parquet, read in blocks."""

import itertools

import numpy as np
import pyarrow.compute as pc

from pixelrec_train.data.columns import find_columns
from pixelrec_train.data.convert.sets.source import Block
from pixelrec_train.data.interaction_table import to_numbers
from pixelrec_train.data.table_files import DAMAGES, damaged
from pixelrec_train.data.tables import PARQUET, open_table
from pixelrec_train.errors import InputError

HINT = "Is it another file, or another edition of the data set? docs/convert.md names what to bring"
ROLES = ("user_id", "item_id", "timestamp", "rating")


def table_blocks(paths, user, item, time, rating=None):
    """Blocks of tables, one behind the other.

    Args:
        user, item, time, rating: names of their columns; None = there are no ratings.

    Raises:
        InputError: a file is damaged or malformed, lacks a column, or a row lacks an id or a number.
    """
    for path in paths:
        table = open_table(path)
        told = {role: name for role, name in zip(ROLES, (user, item, time, rating), strict=True) if name}
        columns = list(find_columns(table, told, told, hint=HINT).values())
        row = 1
        try:
            for users, items, *numbers in table.blocks(columns):
                ids = [ids_of(table, texts, name, row)
                       for texts, name in zip((users, items), columns[:2], strict=True)]  # fmt: skip
                values = [numbers_of(table, texts, name, row)
                          for texts, name in zip(numbers, columns[2:], strict=True)]  # fmt: skip
                yield Block(*ids, values[0], values[1].astype(np.float32) if rating else None)
                row += len(users)
        except DAMAGES as error:
            raise damaged(path, error) from None


def ids_of(table, texts, name, row):
    texts = pc.utf8_trim_whitespace(texts)
    if (empty := pc.index(texts, "").as_py()) >= 0:
        raise InputError(f"{place(table, row + empty)} has no {name}. Every row needs one.")
    return texts


def numbers_of(table, texts, name, row):
    numbers = to_numbers(texts)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        found = texts[int(wrong[0])].as_py()
        raise InputError(
            f"{place(table, row + int(wrong[0]))}: {name} is {found[:60]!r}. It must be a number."
        )
    return numbers


def place(table, row):
    """Where a row of a table stands, from 1: its line where it has any."""
    if table.delimiter == PARQUET:
        return f"{table.path} row {row:,}"
    lines = (line for line, _, fields in table.lined_rows() if any(fields))
    return f"{table.path} line {next(itertools.islice(lines, row, None), row + 1):,}"


def item_rows(paths, **columns):
    """Yields {our name: text} of every row of tables; columns: our name = theirs. See table_blocks."""
    for path in paths:
        table = open_table(path)
        found = find_columns(table, columns, columns, hint=HINT)
        try:
            for number, values in enumerate(table.rows(list(found.values())), 1):
                row = dict(zip(found, values, strict=True))
                if not row["item_id"].strip():
                    raise InputError(
                        f"{place(table, number)} has no {found['item_id']}. Every row needs one."
                    )
                yield row | {"item_id": row["item_id"].strip()}
        except DAMAGES as error:
            raise damaged(path, error) from None
