"""Ranked items of every user, as Parquet and as JSON lines: one row for a user, lists best first."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pixelrec_train.files import whole

TEXTS, SCORES = pa.list_(pa.string()), pa.list_(pa.float32())
SCHEMA = pa.schema(
    {
        "user_id": pa.string(), "history": TEXTS, "target": pa.string(), "item_ids": TEXTS, "titles": TEXTS,
        "scores": SCORES, "semantic_ids": TEXTS,
    }
)  # fmt: skip
FILES = ("predictions.parquet", "predictions.jsonl")
ROWS = 4096  # written at once


def write_predictions(directory, rows):
    """Write both files, whole or not at all.

    Args:
        directory: is made where it is not there.
        rows: iterator of dicts with the columns of SCHEMA; None where something is not known.

    Returns:
        how many rows there were
    """
    directory, count = Path(directory), 0
    directory.mkdir(parents=True, exist_ok=True)
    table, lines = partial = [directory / f"{name}.partial" for name in FILES]
    rows = iter(rows)
    try:
        with pyarrow.parquet.ParquetWriter(table, SCHEMA) as file, open(lines, "w", encoding="utf-8") as text:
            while block := list(itertools.islice(rows, ROWS)):
                file.write_table(pa.Table.from_pylist(block, SCHEMA))
                text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in block)
                count += len(block)
        for path in partial:
            os.replace(path, path.with_suffix(""))
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
    return count


def write_lists(path, user_ids, item_ids, lists):
    """A table user_id, item_ids, scores, a row for each user, whole or not at all.

    Args:
        item_ids: of every item by number.
        lists: items [b, k] numbers, best first, -1 where there is none; scores [b, k].
    """
    there = lists.items >= 0
    ends = pa.array(np.append(0, np.cumsum(there.sum(1))).astype(np.int32))
    named = pa.array(item_ids, pa.string()).take(pa.array(lists.items[there]))
    columns = {
        "user_id": pa.array(user_ids, pa.string()),
        "item_ids": pa.ListArray.from_arrays(ends, named),
        "scores": pa.ListArray.from_arrays(ends, pa.array(lists.scores[there], pa.float32())),
    }
    with whole(path) as partial:
        pyarrow.parquet.write_table(pa.table(columns), partial)
