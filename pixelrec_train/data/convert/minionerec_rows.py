"""The rows of MiniOneRec's CSVs: checked against the items, and put together to what each user took."""

from pixelrec_train.data.columns import find_columns
from pixelrec_train.data.convert.minionerec import COLUMNS
from pixelrec_train.data.convert.reading import cell, item_id_of, literals
from pixelrec_train.data.tables import open_table
from pixelrec_train.errors import InputError

NEEDED = ("user_id", "item_id", "history_item_id")


def read_rows(path, part, items):
    """Yields (part, user id, item id, [item id of the history]) of every row, in their order.

    Args:
        items: Items, with which every row is compared.

    Raises:
        InputError: a row is of another form, names an unknown item, or says another id of one.
    """
    table = open_table(path)
    more = [name for name in COLUMNS if name not in NEEDED]
    columns = find_columns(
        table, (*NEEDED, *more), optional=more, hint="It must be one of MiniOneRec's tables"
    )
    for number, values in enumerate(table.rows(list(columns.values())), 1):
        row, where = dict(zip(columns, values, strict=True)), f"{path}, row {number:,}"
        history = [as_id(member, where) for member in listed(row, "history_item_id", where)]
        taken = [*history, item_id_of(row["item_id"].strip(), where)]
        sids, titles = (said(row, what, len(taken), where) for what in ("sid", "title"))
        for item_id, sid, title in zip(taken, sids, titles, strict=True):
            items.check(item_id, sid, title, where)
        if not (user := row["user_id"].strip()):
            raise InputError(f"{where} has no user_id. Every row is a user's.")
        yield part, cell(user, where), taken[-1], history


def listed(row, column, where):
    if (members := literals(row[column])) is None:
        raise InputError(
            f"{where}: {column} is {row[column][:60]!r}. It must be a list as Python writes it: [10, 11] or "
            f"['a', 'b']."
        )
    return members


def as_id(member, where):
    return item_id_of(member.strip() if isinstance(member, str) else member, where)


def said(row, what, count, where):
    """[count] what a row says of the history's items, and last of the target; None where it has no column."""
    many, one = f"history_item_{what}", f"item_{what}"
    values = listed(row, many, where) if many in row else [None] * (count - 1)
    if len(values) != count - 1:
        raise InputError(
            f"{where}: {many} has {len(values):,} members, but history_item_id {count - 1:,}. They must "
            f"be of the same items."
        )
    if many in row and not all(isinstance(value, str) for value in values):
        raise InputError(f"{where}: {many} is {row[many][:60]!r}. Its members must be texts.")
    values.append(row.get(one))
    return [value and value.strip() for value in values] if what == "sid" else values


def histories_of(rows):
    """({user id: item ids, oldest first}, number of rows that do not go on where the one before ended).

    A row is a stretch of what its user took, some items and the target; the user's next row goes on by one.
    Every taking comes out once, though it stands in up to eleven rows.

    Args:
        rows: of read_rows, each user's oldest first.
    """
    longest, histories, apart = max((len(row[-1]) for row in rows), default=0), {}, 0
    for _, user_id, item_id, history in rows:
        taken, items = histories.setdefault(user_id, []), [*history, item_id]
        # A history that was not cut is all that its user took before.
        whole = len(history) in (len(taken), longest)
        if taken and history and whole and taken[-len(history) :] == history:
            taken.append(item_id)
        elif not holds(taken, items):
            most = min(len(taken), len(items))
            overlap = next(n for n in range(most, -1, -1) if taken[len(taken) - n :] == items[:n])
            apart += bool(taken) and overlap < len(history)
            taken += items[overlap:]
    return histories, apart


def holds(taken, items):
    """Whether a row's items stand in a row in what was taken."""
    width = len(items)
    return any(taken[begin : begin + width] == items for begin in range(len(taken) - width + 1))
