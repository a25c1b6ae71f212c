"""MiniOneRec's files of a data set: CSVs of histories and targets, index.json, item.json, info.txt.

train/NAME….csv, valid/…, test/…   user_id, item_id, history_item_id and the titles and ids of both; lists are
                                   text as Python writes it
index/NAME.index.json              {item id: ["<a_1>", "<b_2>", "<c_3>"]}, of any number of levels
index/NAME.item.json               {item id: {"title": …, "description": …, perhaps "brand", "categories"}}
info/NAME….txt                     id, title and item id by tabs

Source: AkaliKong/MiniOneRec, data.py and sft.sh.
"""

import re
from pathlib import Path

from pixelrec_train.data.convert.reading import item_id_of
from pixelrec_train.data.given_split import PARTS
from pixelrec_train.errors import InputError
from pixelrec_train.files import write_csv, write_json, write_whole

COLUMNS = (
    "user_id", "history_item_title", "item_title", "history_item_id", "item_id", "history_item_sid",
    "item_sid",
)  # fmt: skip
NUMBER = re.compile("0|[1-9][0-9]{0,17}")


def write(directory, name, item_ids, ids_words, titles, descriptions, split_rows, tags=None):
    """Write their files into a directory, as their scripts and minionerec_reading.read look for them.

    A part without a row has no CSV.

    Args:
        ids_words: [N] of [token, …], all levels.
        titles, descriptions: [N] texts.
        split_rows: iterable of (train, valid or test, user id, item id, [item id of the history]), oldest
            first as far as they are of one user.
        tags: [N] texts, "categories" of item.json; None = it has none.

    Raises:
        InputError: a row names an unknown item or part, or an item stands there twice.
    """
    directory, item_ids = Path(directory), [item_id_of(item_id, f"{name}.index.json") for item_id in item_ids]
    words, titles = dict(zip(item_ids, ids_words, strict=True)), dict(zip(item_ids, titles, strict=True))
    if len(words) < len(item_ids):
        raise InputError("an item stands there twice, but MiniOneRec's files have one entry of each.")
    spelled = {item_id: "".join(own) for item_id, own in words.items()}
    numbers = all(map(NUMBER.fullmatch, item_ids))  # theirs are, and they stand without quotes in lists

    def literal(item_id):
        return int(item_id) if numbers else item_id

    rows = {part: [] for part in PARTS}
    for part, user_id, item_id, history in split_rows:
        if part not in rows or not spelled.keys() >= {item_id, *history}:
            raise InputError(
                f"the row {part}, {user_id!r}, {item_id!r} is of no known part, or of unknown items."
            )
        rows[part].append((
            user_id, [titles[i] for i in history], titles[item_id], [literal(i) for i in history], item_id,
            [spelled[i] for i in history], spelled[item_id],
        ))  # fmt: skip
    items = {item_id: {"title": titles[item_id], "description": text}
             for item_id, text in zip(item_ids, descriptions, strict=True)}  # fmt: skip
    for item_id, tag in zip(item_ids, tags or (), strict=bool(tags)):
        items[item_id]["categories"] = tag
    for folder in ("index", "info"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    write_json(directory / f"index/{name}.index.json", words)
    write_json(directory / f"index/{name}.item.json", items)
    # A tab or a line break of a title would be taken for the end of it.
    lines = (f"{spelled[i]}\t{' '.join(titles[i].split())}\t{i}\n" for i in item_ids)
    write_whole(directory / f"info/{name}.txt", "".join(lines))
    for part, own in rows.items():
        if own:
            write_csv(directory / f"{part}/{name}.csv", COLUMNS, own)
