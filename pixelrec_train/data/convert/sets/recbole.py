"""RecBole's atomic files: NAME.inter and NAME.item, whose header says name:type.

They are read as they are by every command here (--interaction_data NAME.inter); what this adds is filters,
and titles, tags and descriptions under our names. Which of an item file's columns these are is found by their
names: …title…, …name…; …categor…, …class…, …genre…, …tag…, …brand…; …descri…, …abstract….

Source: RecBole's documentation of atomic files; their counts are those of RUCAIBox/RecSysDatasets.
"""

import re

from pixelrec_train.data.columns import find
from pixelrec_train.data.convert.sets.columns import item_rows, table_blocks
from pixelrec_train.data.convert.sets.given import only, pick
from pixelrec_train.data.convert.sets.source import Item, Published, Source
from pixelrec_train.data.tables import open_table
from pixelrec_train.errors import InputError

LICENCE = (
    "RecBole's files hold other makers' data, whose licences stay: see RUCAIBox/RecSysDatasets for each."
)
TEXTS = {"title": "title|name", "tag": "categor|class|genre|tag|brand", "description": "descri|abstract"}
SOURCE = "RUCAIBox/RecSysDatasets, dataset_info"
PUBLISHED = {
    "ml-100k": Published("943", "1,682", "100,000", SOURCE),
    "ml-1m": Published("6,040", "3,952", "1,000,209", SOURCE),
    "ml-10m": Published("69,878", "10,681", "10,000,054", SOURCE),
    "ml-20m": Published("138,493", "27,278", "20,000,263", SOURCE),
    "amazon_beauty": Published("1,210,271", "249,274", "2,023,070", SOURCE),
    "amazon_video_games": Published("826,767", "50,210", "1,324,753", SOURCE),
    "amazon_books": Published("8,026,324", "2,330,066", "22,507,155", SOURCE),
}


def source(files):
    inter = only(files, "recbole", "interactions: NAME.inter", "*.inter")
    items = pick(files, f"{inter.stem.lower()}.item")
    names = open_table(inter).names
    if find(names, "item_id_list"):
        raise InputError(
            f"{inter} holds sessions, a row each. Give it as --interaction_data; nothing is to convert."
        )
    found = {role: find(names, role) for role in ("user_id", "item_id", "timestamp")}
    if lacking := [role for role, name in found.items() if name is None]:
        raise InputError(
            f"{inter} has no column {', '.join(lacking)}; its columns are {', '.join(names)}. Users, "
            f"items and times are needed."
        )
    blocks = table_blocks([inter], *found.values(), "rating" if "rating" in names else None)
    name, texts = inter.stem.lower(), rows(items[0]) if items else []
    known = [PUBLISHED[name]] if name in PUBLISHED else []
    return Source(f"recbole_{name}", [inter, *items], blocks, texts, known)


def rows(path):
    names = open_table(path).names
    if (item := find(names, "item_id")) is None:
        raise InputError(f"{path} has no column item_id; its columns are {', '.join(names)}.")
    there = {"item_id": item}
    for role, pattern in TEXTS.items():
        fits = [name for name in names if name not in there.values() and re.search(pattern, name.lower())]
        there |= {role: fits[0]} if fits else {}
    for row in item_rows([path], **there):
        yield Item(*(row.get(name, "") for name in Item._fields))
