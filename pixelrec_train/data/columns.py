"""Which column of a table is which."""

import itertools
import textwrap

from pixelrec_train.data.tables import malformed
from pixelrec_train.errors import InputError

# The names under which other projects publish what we call so; the first that is there is taken. Case and "_"
# make no difference, but our own name, written exactly, comes first.
KNOWN_NAMES = {
    "user_id": ("userid", "user", "uid", "reviewerid", "sessionid", "visitorid", "customerid"),
    "item_id": ("itemid", "parentasin", "asin", "movieid", "productid", "videoid", "item", "iid"),
    "timestamp": ("timestamp", "unixreviewtime", "time", "datetime", "date", "timems"),
    "item_id_list": ("itemidlist",),
}
HINT = "Rename them in the file's first line, or name yours with --user_column, --item_column, --time_column"


def find_columns(table, wanted, told=None, optional=(), hint=HINT):
    """{wanted name: the table's name for it}.

    Args:
        told: {wanted name: the table's name for it, or None}, as the user says.
        optional: wanted names that may be absent; they are left out then.

    Raises:
        InputError: a column is absent, or there twice.
    """
    told = told or {}
    found = {name: told.get(name) or find(table.names, name) for name in wanted}
    absent = [column or name for name, column in found.items() if column not in table.names]
    missing = [name for name in absent if name not in optional or name in told.values()]
    if missing:
        if "\n" in "".join(table.names):  # a quote of the first line is open
            raise malformed(table)
        first = "" if len(absent) < len(wanted) else "The first line must hold the column names. "
        raise InputError(
            f"{table.path} has no column {', '.join(missing)}. Its columns are: "
            f"{textwrap.shorten(', '.join(table.names), 200, placeholder=' …')}. {first}{hint} "
            f"(columns are found by name, in any order)."
        )
    found = {name: column for name, column in found.items() if column is not None}
    for column in found.values():
        if (times := table.names.count(column)) > 1:
            raise InputError(f"{table.path} has the column {column} {times} times. Keep one.")
    roles = [name for name in found if name in KNOWN_NAMES]
    for one, other in itertools.combinations(roles, 2):
        if found[one] == found[other]:
            raise InputError(
                f"{table.path}: the column {found[one]} cannot be both {one} and {other}. See --user_column, "
                f"--item_column, --time_column."
            )
    return found


def find(names, wanted):
    """The one of a table's names that stands for what is wanted; None where none does."""
    if wanted in names:
        return wanted
    plain = {name.lower().replace("_", ""): name for name in reversed(names)}
    return next((plain[known] for known in KNOWN_NAMES.get(wanted, ()) if known in plain), None)


def check_label(label_column, table, found=None):
    """Raises InputError where a table has no such column, or it is another one; None = none is wanted.

    found: of find_columns; None of a table of sessions.
    """
    if label_column is None:
        return
    if found is None:
        raise InputError(
            f"{table.path} holds sessions: a row is a whole history there, so no column says something of "
            f"each interaction. Leave out --label_column."
        )
    if label_column not in table.names:
        raise InputError(
            f"{table.path} has no column {label_column} (--label_column). Its columns are: "
            f"{textwrap.shorten(', '.join(table.names), 200, placeholder=' …')}."
        )
    for role, column in found.items():
        if column == label_column:
            raise InputError(f"--label_column {column} is the {role} of {table.path}. Name another column.")


def about(table, found, flag_name):
    """[what a person may want to know of how a table is read], where there is anything.

    found: of find_columns.
    """
    said = [f"{name} is {column}" for name, column in found.items() if name != column]
    if not table.encoding.startswith("utf-8"):
        said.append(f"read as {table.encoding}")
    return [f"{flag_name}: {', '.join(said)}"] if said else []
