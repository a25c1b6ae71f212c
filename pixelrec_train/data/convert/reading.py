"""Files of other projects: found by their names, read, and refused in words. Imports nothing heavy."""

import ast
import glob
import json
import warnings
from pathlib import Path

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import refuse_repeated_keys

SHOWN = 10  # names of a kind; the rest is counted


def found(directory, patterns):
    """The file that the first fitting pattern names; None where none fits.

    Raises:
        InputError: a pattern fits several files.
    """
    for pattern in patterns:
        files = sorted(path for path in Path(directory).glob(pattern) if path.is_file())
        if len(files) > 1:
            raise InputError(
                f"--data_dir {directory} holds {len(files):,} files {pattern}: {listed(files, str)}. Say "
                f"which with --name."
            )
        if files:
            return files[0]
    return None


def needed(directory, patterns):
    """The same, or an InputError where there is none."""
    if (path := found(directory, patterns)) is None:
        raise InputError(f"--data_dir {directory} holds no {' and no '.join(patterns)}. Copy it there.")
    return path


def patterns_of(name, *forms):
    """[pattern] of "{name}.csv" and so on; without a name any file fits."""
    shown = "*" if name is None else glob.escape(name)
    return [form.format(name=shown).replace("**", "*") for form in forms]


def listed(names, show=repr):
    """ "'a', 'b' and 8 more" """
    names = list(names)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(show, names[:SHOWN])) + more


def read_object(path, holds):
    """The dict of a JSON file whose members are objects, or lists, by an item's id.

    Args:
        holds: what an item has there, in words.

    Raises:
        InputError: it is no such file, or names an item twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        of_items = json.loads(text, object_pairs_hook=refuse_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {first_line(error)}") from None
    if not isinstance(of_items, dict) or not of_items:
        raise InputError(f"{path} must hold a JSON object, item id -> {holds}.")
    return {item_id_of(item_id, path): fields for item_id, fields in of_items.items()}


def lines_of(path):
    """(line from 1, text) of a UTF-8 file. Raises InputError where it is not."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                yield number, line
        except UnicodeDecodeError:
            raise InputError(
                f"{path} is not UTF-8 text, behind line {number}. Only text is read; save it as UTF-8."
            ) from None


def item_id_of(value, where):
    """An item's id as text. Raises InputError where a history, ids with spaces between, could not hold it."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or len(text.split()) != 1 or text.strip() != text:
        raise InputError(
            f"{where} has the item id {value!r}. An id is a word or a whole number, without spaces."
        )
    return cell(text, where)


def field(fields, key, where):
    """A text of an item as a cell of a table; nothing is "", and a list of texts is as JSON writes it.

    data/item_fields.py reads such a list as its members.

    Raises:
        InputError: it is something else.
    """
    value = fields.get(key)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str | None):
        raise InputError(f"{where} has {str(value)[:60]!r} as its {key}. It must be a text.")
    return cell(value or "", where)


def cell(text, where):
    """The text. Raises InputError where no CSV in UTF-8 can hold it."""
    if "\0" in text or text != text.encode(errors="ignore").decode():
        raise InputError(
            f"{where} holds {text[:40]!r}, with a character that is none (NUL, or half of a surrogate pair). "
            f"Remove it there."
        )
    return text


def literals(text):
    """The members of a list as Python writes it; None where the text is no such list.

    Literals alone are built, nothing is run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a backslash that Python does not know
            members = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return list(members) if isinstance(members, list | tuple) else None
