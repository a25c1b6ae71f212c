"""Files that are read line by line: fields between separators, JSON lines, and Python's way to write them."""

import ast
import html
import io
import json
import re
import warnings

from pixelrec_train.data.convert.reading import cell
from pixelrec_train.data.table_files import BLOCK, DAMAGES, damaged, open_unpacked
from pixelrec_train.data.tables import as_text
from pixelrec_train.errors import InputError

SHOWN = 60  # characters of a line in an error
MARK = re.compile("<[^<>]*>")


def text_lines(path, encoding="utf-8-sig"):
    """(line from 1, text) of every line that is not blank; the file may be packed.

    Raises:
        InputError: it is damaged, empty, or not in that encoding.
    """
    number, empty = 0, True
    try:
        with io.TextIOWrapper(io.BufferedReader(open_unpacked(path), BLOCK), encoding, newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    empty = False
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is not {encoding.removesuffix('-sig')} text, behind line {number:,}. Save it so, or "
            f"bring the file as its makers publish it."
        ) from None
    except DAMAGES as error:
        raise damaged(path, error) from None
    if empty:
        raise InputError(f"{path} is empty. Bring the file as its makers publish it.")


def split_lines(path, separator, names, encoding="utf-8-sig"):
    """(where it stands, fields) of every line.

    Args:
        names: of all fields of a line.

    Raises:
        InputError: a line has more fields or fewer.
    """
    for number, line in text_lines(path, encoding):
        fields = line.split(separator)
        if len(fields) != len(names):
            raise InputError(
                f"{path} line {number:,} has {len(fields)} fields, not the {len(names)} of "
                f"{separator.join(names)!r}: {line[:SHOWN]!r}. Is it another file?"
            )
        yield f"{path} line {number:,}", fields


def records(path):
    """(where it stands, dict) of every line: JSON, or a literal as Python writes it.

    Literals alone are built, nothing is run.

    Raises:
        InputError: a line is neither.
    """
    for number, line in text_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = literal(line)
        if not isinstance(record, dict):
            raise InputError(
                f"{path} line {number:,} is no JSON object: {line[:SHOWN]!r}. Every line must be one; is it "
                f"cut off?"
            )
        yield f"{path} line {number:,}", record


def literal(line):
    """What Python's literal stands for; None where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a backslash that Python does not know
            return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def member(record, key, where):
    """An entry of a record that must be there.

    Raises:
        InputError: it is not, or is empty.
    """
    value = record.get(key)
    if value is None or value == "":
        raise InputError(
            f"{where} has no {key}. Its entries are {', '.join(map(str, record))[:200] or 'none'}. Is it "
            f"another file, or another edition of the data set?"
        )
    return value


def id_of(value, where):
    """An id as text; a number is written as it is."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise InputError(f"{where} has the id {value!r}. An id is a text or a whole number.")
    return cell(str(value).strip(), where)


def number_of(value, name, where):
    """A float. Raises InputError where it is no finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number - number != 0:  # true for nan and for both infinities
        raise InputError(f"{where}: {name} is {str(value)[:SHOWN]!r}. It must be a number.")
    return number


def plain(value):
    """A text, or a list of them, on one line and without marks of HTML, or what cannot be written."""
    text = as_text(value)
    if "<" in text:
        text = MARK.sub(" ", text)
    text = html.unescape(text).replace("\0", "").encode(errors="ignore").decode()
    return " ".join(text.split())
