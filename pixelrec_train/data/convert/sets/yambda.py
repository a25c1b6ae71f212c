"""Yambda: listening on Yandex Music; 50M, 500M and 5B, as flat Parquet files.

listens.parquet               uid, item_id, timestamp, played_ratio_pct (the rating), …
likes.parquet                 uid, item_id, timestamp, …; no rating
artist_item_mapping.parquet   artist_id, item_id: there is no other text, so without it items have none
                              (--id_only trains without texts)

Times are seconds since an unknown day. --min_rating 50 gives what its benchmark calls Listen+.

Source: yandex/yambda and arXiv:2505.22238, tables 1 and 4, whose counts these are.
"""

import re

from pixelrec_train.data.convert.reading import listed
from pixelrec_train.data.convert.sets.columns import item_rows, table_blocks
from pixelrec_train.data.convert.sets.given import only, pick
from pixelrec_train.data.convert.sets.source import Item, Published, Source
from pixelrec_train.data.tables import PARQUET, open_table
from pixelrec_train.errors import InputError

LICENCE = "Yambda is published by Yandex under the Apache licence, version 2.0."
PAPER = "arXiv:2505.22238; users and items of all events"
PUBLISHED = {
    ("50m", "listens"): Published("10,000", "934,057", "46,467,212", PAPER),
    ("500m", "listens"): Published("100,000", "3,004,578", "466,512,103", PAPER),
    ("5b", "listens"): Published("1,000,000", "9,390,623", "4,649,567,411", PAPER),
    ("50m", "likes"): Published("10,000", "934,057", "881,456", PAPER),
    ("500m", "likes"): Published("100,000", "3,004,578", "9,033,960", PAPER),
    ("5b", "likes"): Published("1,000,000", "9,390,623", "89,334,605", PAPER),
}


def source(files):
    what = "events: listens.parquet or likes.parquet"
    events = only(files, "yambda", what, "listens*.parquet", "likes*.parquet")
    table = open_table(events)
    if table.delimiter != PARQUET or "item_id" not in table.names:
        raise InputError(
            f"{events} has the columns {listed(table.names, str)}. Bring the flat files, a row per event: "
            f"flat/50m/{events.name}."
        )
    artists = pick(files, "artist_item_mapping*.parquet")
    kind = "likes" if events.name.startswith("likes") else "listens"
    size = re.search(r"\b(50m|500m|5b)\b", str(events.resolve()).lower().replace("_", " "))
    size = size and size[1]
    known = PUBLISHED.get((size, kind))
    title = f"yambda_{size}_{kind}" if size else f"yambda_{kind}"
    played = "played_ratio_pct" if kind == "listens" else None
    blocks = table_blocks([events], "uid", "item_id", "timestamp", played)
    return Source(title, [events, *artists], blocks, tracks(artists), [known] if known else [])


def tracks(paths):
    for row in item_rows(paths, item_id="item_id", artist="artist_id"):
        yield Item(row["item_id"], f"artist {row['artist']}", "", "")
