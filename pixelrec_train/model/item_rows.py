"""Which row of a checkpoint's tables is which item: ids are written beside, so any numbering finds them."""

import json
from pathlib import Path

import numpy as np

from pixelrec_train.errors import InputError

IDS = "item_ids.json"


def write_ids(directory, item_ids):
    (Path(directory) / IDS).write_text(json.dumps(list(item_ids), ensure_ascii=False), encoding="utf-8")


def known_rows(directory, item_ids, count):
    """[num_items] the row of each item in a table of `count` rows, -1 for one that it does not know.

    count: None = there is no table, only the ids.

    Raises:
        InputError: the ids are not those of the table, or it knows none of these items.
    """
    try:
        ids = json.loads((Path(directory) / IDS).read_text("utf-8"))
        row = {item_id: r for r, item_id in enumerate(ids)}
        damaged = len(row) != (len(ids) if count is None else count)
    except (OSError, ValueError, TypeError):
        damaged = True
    if damaged:
        raise InputError(f"{directory} is damaged: its {IDS} does not name the rows of its tables of items.")
    rows = np.array([row.get(item_id, -1) for item_id in item_ids])
    if not (rows >= 0).any():
        raise InputError(
            f"none of the {len(item_ids):,} items is among the {len(row):,} that {directory} knows "
            f"({item_ids[0]!r} here, {next(iter(row))!r} there)."
        )
    return rows


def at_rows(table, rows):
    """[num_items, …] the rows of a table; zeros for -1."""
    found = table[np.maximum(rows, 0)]
    found[rows < 0] = 0
    return found
