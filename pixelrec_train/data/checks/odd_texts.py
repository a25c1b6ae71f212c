"""What is odd about the rows of an item CSV, and about the interactions' items beside it; in which lines."""

from pixelrec_train.data.checks.remarks import SHOWN, Examples, LinedRows, Remark
from pixelrec_train.data.columns import find_columns
from pixelrec_train.data.spelling import pairs

SNIPPET = 40  # characters of a text that is shown


def check_texts(path, item_ids, text_keys, line_of_item, told, encoding):
    """Read the file row by row -> (rows, remarks).

    Args:
        item_ids: of the catalogue.
        text_keys: the columns whose texts are read.
        told: {"item_id": the table's name for it, or None}
        line_of_item: item_id -> the line of the interaction CSV in which it occurs first.

    Raises:
        InputError: the file has no header.
    """
    rows, wanted = LinedRows(path, encoding), set(item_ids)
    columns = find_columns(rows.table, ("item_id", *text_keys), told)
    id_place, *places = [rows.header.index(columns[name]) for name in ("item_id", *text_keys)]
    no_id, twice, unwanted, empty, same = (Examples() for _ in range(5))
    seen, texts, count = {}, {}, 0
    for count, (line, row) in enumerate(rows, 1):  # noqa: B007 (used below)
        item_id, fields = row[id_place].strip(), tuple(row[place] for place in places)
        if not item_id:
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
    alike = Examples()
    for item_id, other in pairs(missing, seen):
        alike.add(f"{item_id!r} is {other!r} in line {seen[other]}")
    yield from alike.remark(
        "item", "of these would be there but for white space, case, leading zeros or .0", label=""
    )


def snippet(fields):
    text = next(field for field in fields if field.strip())
    return text if len(text) <= SNIPPET else text[: SNIPPET - 1] + "…"
