"""ReRe's files, and those of D3 before it: windows of users' histories in three CSVs, titles in info.

train/NAME.csv, valid/…, test/…   user_id, history_item_id, item_id, item_title, history_timestamp, timestamp,
                                  perhaps rating and history_rating; lists are text as Python writes it
info/NAME.txt                     title and item id by a tab

A row is an item and up to ten before it. Every taking is the target of one row but a user's first, which is
the history of the row whose history has one item.

Source: sober-clever/ReRe, data/process_yelp.py.
"""

from pixelrec_train.data.columns import find_columns
from pixelrec_train.data.convert.reading import literals
from pixelrec_train.data.convert.sets.columns import HINT
from pixelrec_train.data.convert.sets.given import needed
from pixelrec_train.data.convert.sets.lines import id_of, number_of, text_lines
from pixelrec_train.data.convert.sets.source import Item, Source, blocks_of
from pixelrec_train.data.tables import open_table
from pixelrec_train.errors import InputError

LICENCE = (
    "ReRe states no licence for its files; the data in them are Amazon's reviews or Yelp's, whose terms stay."
)
COLUMNS = ("user_id", "item_id", "timestamp", "history_item_id", "history_timestamp")
RATINGS = ("rating", "history_rating")


def source(files):
    windows = needed(files, "rere", "its windows: train/NAME.csv, valid/NAME.csv and test/NAME.csv", "*.csv")
    info = needed(files, "rere", "its titles: info/NAME.txt", "*.txt", but=("readme*", "requirements*"))
    parts = [file.parent.name.lower() for file in windows]
    if sorted(parts) != ["test", "train", "valid"] or len(info) > 1:
        raise InputError(
            f"rere needs one CSV in each of train, valid and test, and one info; found "
            f"{', '.join(map(str, [*windows, *info]))}. Name the files of one data set."
        )
    return Source(
        f"rere_{windows[0].stem.lower()}", [*windows, *info], blocks_of(takings(windows)), titles(info[0])
    )


def takings(paths):
    tables = list(map(open_table, paths))
    rated = all(name in table.names for table in tables for name in RATINGS)
    for path, table in zip(paths, tables, strict=True):
        columns = find_columns(table, COLUMNS + RATINGS * rated, dict.fromkeys(COLUMNS), hint=HINT)
        for number, values in enumerate(table.rows(list(columns.values())), 1):
            row, where = dict(zip(columns, values, strict=True)), f"{path}, row {number:,}"
            lists = {name: literals(row[name]) for name in columns if name.startswith("history_")}
            if None in lists.values() or len({len(of_it) for of_it in lists.values()}) > 1:
                raise InputError(
                    f"{where}: {' and '.join(lists)} must be lists of one length, as Python writes them: "
                    f"[10, 11]."
                )
            if len(lists["history_item_id"]) == 1:  # a user's second item: the first stands nowhere else
                yield taking(row["user_id"], *(lists.get(f"history_{name}", [None])[0] for name in
                             ("item_id", "timestamp", "rating")), where)  # fmt: skip
            yield taking(row["user_id"], row["item_id"], row["timestamp"], row.get("rating"), where)


def taking(user, item, time, rating, where):
    rating = None if rating is None else number_of(rating, "the rating", where)
    return id_of(user, where), id_of(item, where), number_of(time, "the timestamp", where), rating


def titles(path):
    for number, line in text_lines(path):
        title, tab, item = line.rpartition("\t")
        if not tab or not item.strip():
            raise InputError(
                f"{path} line {number:,} is {line[:60]!r}. It must be a title and an item id, by a tab."
            )
        yield Item(item.strip(), title.strip(), "", "")
