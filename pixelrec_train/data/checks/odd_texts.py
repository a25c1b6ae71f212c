"""What is odd about the rows of an item CSV, and about the interactions' items beside it; in which lines."""

import pyarrow as pa

from pixelrec_train.data.checks.odd_interactions import simplified
from pixelrec_train.data.checks.remarks import SHOWN, Examples, LinedRows, Remark

SNIPPET = 40  # characters of a text that is shown


def check_texts(path, item_ids, text_keys, line_of_item):
    """Read the file row by row -> (rows, remarks).

    Args:
        item_ids: of the catalogue.
        text_keys: the columns whose texts are read.
        line_of_item: item_id -> the line of the interaction CSV in which it occurs first.

    Raises:
        InputError: the file has no header.
    """
    rows, wanted = LinedRows(path), set(item_ids)
    id_place, *places = [rows.header.index(name) for name in ("item_id", *text_keys)]
    no_id, twice, unwanted, empty, same = (Examples() for _ in range(5))
    seen, texts, count = {}, {}, 0
    for count, (line, row) in enumerate(rows, 1):  # noqa: B007 (used below)
        item_id, fields = row[id_place], tuple(row[place] for place in places)
        if not item_id.strip():
            no_id.add(line)
        elif item_id in seen:
            twice.add(f"{line} (first in {seen[item_id]})")
        elif item_id not in wanted:
            seen[item_id] = line
            unwanted.add(line)
        else:
            seen[item_id] = line
            if not any(field.strip() for field in fields):
                empty.add(line)
            elif (first := texts.setdefault(hash(fields), line)) != line:
                same.add(f"{line} (as {first}: {snippet(fields)!r})")
    keys = ",".join(text_keys)
    return count, [
        *rows.remarks(),
        *no_id.remark("row", "without item_id, not read"),
        *twice.remark("row", "of an item that has one already, not read"),
        *without_row([i for i in item_ids if i not in seen], seen, line_of_item),
        *empty.remark("item", f"with nothing in {keys}"),
        *same.remark("item", f"with the {keys} of another, which no model can tell apart"),
        *unwanted.remark("row", "of an item that nobody took, not read", harmless=True),
    ]  # fmt: skip


def without_row(missing, seen, line_of_item):
    """About items of the interactions that the text file lacks, or spells in another way.

    Args:
        seen: id -> line of the items it has.
    """
    if not missing:
        return
    some = [f"{item_id!r} (line {line_of_item(item_id)} of the interactions)" for item_id in missing[:SHOWN]]
    yield Remark(len(missing), "item", "in no row, read as empty texts", tuple(some), label="")
    spelled = dict(zip(plain(seen), seen.items(), strict=True))
    alike = Examples()
    for item_id, key in zip(missing, plain(missing), strict=True):
        if key in spelled:
            other, line = spelled[key]
            alike.add(f"{item_id!r} is {other!r} in line {line}")
    yield from alike.remark(
        "item", "of these would be there but for white space, case or leading zeros", label=""
    )


def plain(ids):
    return simplified(pa.array(list(ids), pa.string())).to_pylist()


def snippet(fields):
    text = next(field for field in fields if field.strip())
    return text if len(text) <= SNIPPET else text[: SNIPPET - 1] + "…"
