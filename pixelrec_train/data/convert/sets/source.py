"""What every public data set is read as: blocks of interactions, rows of items, and its published counts."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

ROWS = 1 << 16  # of a block


class Block(NamedTuple):
    """Some interactions, in the order of their file."""

    users: pa.Array  # strings
    items: pa.Array
    times: np.ndarray  # [n] float64, as they are written there
    ratings: np.ndarray | None  # [n] float32; None = the data set has none


class Item(NamedTuple):
    item_id: str
    title: str
    tag: str
    description: str


class Published(NamedTuple):
    """Counts that somebody has published, as they are written there: "22,363", "632.0K"; "–" = not said."""

    users: str
    items: str
    interactions: str
    source: str  # of what they are, and where they stand


class Source(NamedTuple):
    """A data set that has been found, not read yet: its rows come as they are asked for."""

    title: str  # its name and edition, in which output files are called after it: "ml-1m"
    files: list  # paths
    blocks: Iterable[Block]
    items: Iterable[Item]
    published: list[Published] = []
    duplicates: str = "all"  # which of its repeated rows its makers keep: of filters.DUPLICATES


def blocks_of(rows):
    """Blocks of rows (user id, item id, time, rating or None)."""
    rows = iter(rows)
    while part := list(itertools.islice(rows, ROWS)):
        users, items, times, ratings = zip(*part, strict=True)
        ratings = None if ratings[0] is None else np.array(ratings, np.float32)
        yield Block(pa.array(users), pa.array(items), np.array(times, np.float64), ratings)
