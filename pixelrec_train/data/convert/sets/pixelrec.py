"""PixelRec: interactions (item_id,user_id,timestamp) and items with English titles, tags and descriptions.

Both files of an edition have one name, Pixel200K.csv, in folders of their own; their headers tell them apart.
Copies of before April 2024 lack the column description.

Source: westlake-repl/PixelRec; the counts of Pixel50K are its README's, the others those of HLLM's table 1.
"""

import re

from pixelrec_train.data.convert.sets.columns import item_rows, table_blocks
from pixelrec_train.data.convert.sets.given import needed
from pixelrec_train.data.convert.sets.source import Item, Published, Source
from pixelrec_train.data.tables import open_table
from pixelrec_train.errors import InputError

LICENCE = (
    "PixelRec's data (Westlake University) are for research and education only: not commercial, and neither "
    "they nor changed copies may be passed on."
)
PUBLISHED = {
    "50k": Published("50,000", "82,865", "989,494", "PixelRec's README"),
    "200k": Published("200,000", "96,282", "3,965,656", "HLLM, arXiv:2409.12740, table 1"),
    "1m": Published("1,001,822", "100,541", "19,886,579", "HLLM, arXiv:2409.12740, table 1"),
    "8m": Published("8,886,078", "407,082", "158,488,652", "HLLM, arXiv:2409.12740, table 1"),
}


def source(files):
    what = "its interactions and its items, each a CSV"
    tables = {file: open_table(file).names for file in needed(files, "pixelrec", what, "*.csv*")}
    interactions = [file for file, names in tables.items() if {"user_id", "item_id", "timestamp"} <= {*names}]
    items = [file for file, names in tables.items() if {"item_id", "title"} <= {*names}]
    for found, columns in ((interactions, "item_id,user_id,timestamp"), (items, "item_id and title")):
        if len(found) != 1:
            raise InputError(
                f"pixelrec needs one CSV with the columns {columns}, but {len(found)} of {len(tables)} have "
                f"them: {', '.join(map(str, found or tables))}. Name the files of one edition."
            )
    edition = re.search("pixel_?([0-9]+[km])", interactions[0].name.lower())
    edition = edition and edition[1]
    return Source(
        f"pixel{edition or 'rec'}", [*interactions, *items],
        table_blocks(interactions, "user_id", "item_id", "timestamp"), rows(items[0], tables[items[0]]),
        [PUBLISHED[edition]] if edition in PUBLISHED else [],
    )  # fmt: skip


def rows(path, names):
    there = {name: name for name in Item._fields if name in names}
    for row in item_rows([path], **there):
        yield Item(*(row.get(name, "") for name in Item._fields))
