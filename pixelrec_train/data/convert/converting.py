"""A public data set becomes our two tables: read, filtered, ordered by time, counted and written."""

import csv
import importlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.convert.interactions import Interactions
from pixelrec_train.data.convert.sets.given import files_of
from pixelrec_train.data.convert.sets.source import Item
from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_directory, possible_directory, whole_file
from pixelrec_train.run.progress import progress

COLUMNS = ("item_id", "user_id", "timestamp", "rating")


class Kept(NamedTuple):
    """What is left of a data set, see Interactions.steps; None = everything."""

    min_rating: float | None = None
    duplicates: str | None = None  # None = as its makers do
    k_core: int = 1
    max_users: int | None = None
    seed: int = 42


def convert(name, named, kept, root, save_as=None, overwrite=False, **more):
    """Yields lines for a person; the tables are there when it ends, both or none.

    Args:
        name: of the data set, of sets/.
        named: paths that somebody gave.
        root: directory in which they become dataset/SAVED.csv and information/SAVED.csv.
        save_as: SAVED; None = the data set's and its edition's name.
        more: for `source` of this data set.

    Raises:
        InputError: a file is missing or broken, or nothing is left.
    """
    module = importlib.import_module(f"pixelrec_train.data.convert.sets.{name}")
    of_folder = hasattr(module, "OF_FOLDER")  # its reader finds the files itself
    found = module.source(folder_of(name, named) if of_folder else files_of(named), **more)
    saved = f"{save_as or found.title}.csv"
    paths = [Path(root, folder, saved) for folder in ("dataset", "information")]
    for path in paths:
        possible_directory(path.parent, "--output_dir")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists. Choose another --save_as or --output_dir, or --overwrite it.")
        if path.exists() and any(path.samefile(file) for file in found.files if file.exists()):
            raise InputError(f"{path} is one of the files that are read. Choose another --output_dir.")
    yield f"{found.title}: {', '.join(file.name for file in found.files)}"
    with progress("interactions", expected(found.published)) as tell:
        everything = Interactions.read(found.blocks, tell)
    if kept.min_rating is not None and everything.ratings is None and len(everything):
        raise InputError(f"--min_rating {kept.min_rating:g}: {found.files[0]} has no ratings. Leave it out.")
    rows = [(*published[:3], f"published: {published.source}") for published in found.published]
    rows.append((*everything.counts, "read"))
    left = everything
    asked = (kept.min_rating, kept.duplicates or found.duplicates, kept.k_core, kept.max_users, kept.seed)
    for what, left in everything.steps(*asked):
        rows.append((*left.counts, what))
        if not len(left):
            break
    yield from lines(rows)
    if not len(left):
        raise InputError(
            f"nothing is left of {found.title} behind {rows[-1][-1]!r}. Ask for less: --min_rating, --k_core."
        )
    yield texts_written(*written(paths, left.by_time(), found.items))
    yield f"made {paths[0]} and {paths[1]}"
    yield f"licence: {module.LICENCE}"


def folder_of(name, named):
    if len(named) != 1:
        raise InputError(f"{name} needs the one folder that holds its files, got {len(named)}.")
    return existing_directory(named[0], "FILES:")


def expected(published):
    """How many interactions there will be, as far as that is published in figures."""
    text = published[0].interactions.replace(",", "") if published else ""
    return int(text) if text.isdigit() else None


def lines(rows):
    """Rows (users, items, interactions, what) below each other."""
    texts = [[n if isinstance(n, str) else f"{n:,}" for n in row] for row in rows]
    for cells in (["users", "items", "interactions", ""], *texts):
        yield "".join(f"{cell:>14}" for cell in cells[:3]) + f"  {cells[3]}".rstrip()


def written(paths, interactions, items):
    """Write both tables; returns (items, how many of them have a row, how many a title or another text).

    An item without a row in the data set gets one whose texts are empty.
    """
    made = [folder for path in paths for folder in path.parents if not folder.exists()]
    numbers, waiting = interactions.item_ids, np.zeros(len(interactions.item_ids), bool)
    waiting[interactions.items] = True
    taken, with_text = int(waiting.sum()), 0

    def rows():
        nonlocal with_text
        with progress("items") as tell:
            for item in items:
                number = numbers.get(item.item_id)
                if number is not None and waiting[number]:  # of rows of one item the first
                    waiting[number] = False
                    with_text += any(item[1:])
                    yield item
                tell(1)

    try:
        with whole_file(paths[0]) as first, whole_file(paths[1]) as second:
            write(first, COLUMNS[: 3 + (interactions.ratings is not None)], interactions.rows())
            write(second, Item._fields, rows())
            without = [item_id for item_id, number in numbers.items() if waiting[number]]
            csv.writer(second, lineterminator="\n").writerows((item_id, "", "", "") for item_id in without)
    finally:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    return taken, taken - len(without), with_text


def write(file, header, rows):
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


def texts_written(items, with_row, with_text):
    without = f"; {items - with_row:,} have no row, and {with_row - with_text:,} an empty one"
    return f"texts: {with_text:,} of {items:,} items have one" + without * (with_text < items)
