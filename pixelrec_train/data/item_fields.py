"""Every item's text fields, as a table has them."""

import ast
import contextlib
import html
import warnings
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixelrec_train.data.columns import about, find_columns
from pixelrec_train.data.item_rows import FirstRows, distinct
from pixelrec_train.data.spelling import difference, pairs
from pixelrec_train.data.tables import as_text, open_table
from pixelrec_train.data.text_file import TextFile
from pixelrec_train.errors import InputError
from pixelrec_train.run import watchdog

MOST_MISSING = 0.05  # share of the items that may be without text, unless --allow_missing_text


def read_texts(item_ids, texts, prompt):
    """The text of each item: prompt, then "key: value" for each non-empty field, nothing in between.

    An item without a row has the empty text; a row whose fields are all empty has the prompt alone.
    Source: HLLM's BatchTextDataset.

    Returns:
        (one str per item, {"without_text": …, "unknown_rows": …, "notes": …})
    """
    fields, facts = read_fields(item_ids, texts)
    return ["" if values is None else joined(texts.text_keys, values, prompt) for values in fields], facts


@watchdog.busy("reading texts")
def texts_on_disk(item_ids, texts, prompt):
    """The same with a TextFile of them, in --cache_dir, so that memory does not grow with their length."""
    file = TextFile(len(item_ids), texts.cache_dir)

    def keep(numbers, rows):
        file.write(numbers, [joined(texts.text_keys, map(plain_text, values), prompt) for values in rows])

    return file, each_item(item_ids, texts, keep)


def joined(text_keys, values, prompt):
    """What is read of an item with these fields."""
    return prompt + "".join(f"{k}: {v}" for k, v in zip(text_keys, values, strict=True) if v)


@watchdog.busy("reading texts")
def read_fields(item_ids, texts):
    """One tuple of values per item, in the order of --text_keys; None for an item without a row.

    Raises:
        InputError: a text column is missing, or more than MOST_MISSING of the items are.
    """
    fields = [None] * len(item_ids)

    def keep(numbers, rows):
        for i, values in zip(numbers.tolist(), rows, strict=True):
            fields[i] = tuple(map(plain_text, values))

    return fields, each_item(item_ids, texts, keep)


def each_item(item_ids, texts, keep):
    """Read the table block by block; of an item that is there twice, the first row counts.

    Args:
        keep: called with the first rows of some items: [n] their numbers, and n tuples of str.

    Returns:
        the facts of read_texts

    Raises:
        InputError: as read_fields.
    """
    table, columns = opened(texts, texts.text_keys)
    rows = FirstRows(table, [columns[name] for name in ("item_id", *texts.text_keys)], item_ids)
    for numbers, values in rows:
        keep(numbers, list(zip(*values, strict=True)) if values else [()] * len(numbers))
    pa.default_memory_pool().release_unused()  # of the blocks
    missing = np.flatnonzero(~rows.there)
    few = len(missing) <= MOST_MISSING * len(item_ids) or texts.allow_missing_text
    if len(missing) == len(item_ids) or not few:
        ids = {item_id.strip() for (item_id,) in table.rows([columns["item_id"]])}
        raise without_text(table.path, [item_ids[i] for i in missing], len(item_ids), sorted(ids))
    notes = about(table, columns, "--text_data")
    return {"without_text": len(missing), "unknown_rows": rows.others, "notes": notes}


def first_texts(item_ids, texts):
    """[the first text of every item, None of those that have none]; texts: TextFlags."""
    fields, _ = read_fields(item_ids, replace(texts, text_keys=texts.text_keys[:1]))
    return [values and values[0] for values in fields]


def item_ids(texts):
    """Ids of all rows, each once."""
    table, columns = opened(texts, ())
    return distinct(pc.utf8_trim_whitespace(block) for (block,) in table.blocks([columns["item_id"]]))


def opened(texts, text_keys):
    """(Table, {"item_id" and each of text_keys: its column}). --item_column may be that of another table."""
    table = open_table(texts.text_data, texts.encoding)
    told = {"item_id": texts.item_column if texts.item_column in table.names else None}
    hint = (
        "Rename them in its first line, or name the text columns with --text_keys (TEXT_KEYS of the script)"
    )
    return table, find_columns(table, ("item_id", *text_keys), told, hint=hint)


def without_text(path, missing, num_items, ids):
    """The InputError of a text table that lacks many items, or spells them in another way.

    ids: of its rows.
    """
    whole = len(missing) == num_items
    some = "any of the" if whole else f"{len(missing):,} ({len(missing) / num_items:.0%}) of the"
    alike = pairs(missing, ids)
    here, there = alike[0] if alike else (missing[0], ids[0] if ids else None)
    but = difference(here, there) if alike else None
    match = f"; {len(alike):,} would match but for {but or 'several such things'}" if alike else ""
    other = "" if there is None else f" The interactions have {here!r}, it has {there!r}{match}."
    way_out = "" if whole else " Or --allow_missing_text reads these items as empty."
    return InputError(
        f"{path} has no row for {some} {num_items:,} items. Do its item_ids match?{other} Spell them in both "
        f"files alike.{way_out}"
    )


def plain_text(text):
    """Without the marks of HTML, and a list that Python or JSON has written as its members."""
    if text[:2] in ("[]", "['", '["', "[["):
        with (
            contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of a backslash that Python does not know
            found = ast.literal_eval(text)  # it builds literals and runs nothing
            text = as_text(found) if members_are_text(found) else text
    return html.unescape(text) if "&" in text else text


def members_are_text(found):
    return isinstance(found, str) or isinstance(found, list) and all(map(members_are_text, found))
