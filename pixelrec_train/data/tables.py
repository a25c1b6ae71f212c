"""Reading a CSV by column names, as text, with one clear sentence for whatever is wrong with the file."""

import csv
import warnings
from pathlib import Path

import pandas as pd

from pixelrec_train.errors import InputError


def read_columns(path, columns, hint="Rename them in the file's first line"):
    """The named columns of a CSV as a DataFrame of str; an empty field is "".

    BOM, CRLF, quoted newlines and quotes are CSV as usual; "NA", "null" and 007 stay the text they are.

    Raises:
        InputError: the file is empty, not UTF-8, malformed, lacks a column or has it twice, or a row has
            more fields than the header.
    """
    path = Path(path)
    header = read_header(path)
    missing = [c for c in columns if c not in header]
    if missing:
        separated = next(
            (name for s, name in SEPARATORS.items() if len(header) == 1 and s in header[0]), None
        )
        if separated:
            raise InputError(f"{path} looks {separated}-separated; its fields must be separated by commas.")
        raise InputError(
            f"{path} has no column {', '.join(missing)}. Its columns are: {', '.join(header)}. {hint} "
            f"(columns are found by name, in any order)."
        )
    for c in columns:
        if header.count(c) > 1:
            raise InputError(f"{path} has the column {c} {header.count(c)} times. Keep one.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a first row that is too long only warns
            table = pd.read_csv(
                path,
                names=range(len(header)),
                header=0,
                dtype=str,
                keep_default_na=False,
                na_filter=False,
                encoding="utf-8-sig",
                index_col=False,
            )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}). {TO_UTF8}") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        detail = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        if isinstance(error, pd.errors.ParserWarning):
            detail = f"the first row has more than {len(header)} fields"
        raise InputError(
            f"{path} is not well-formed CSV: {detail}. A field with commas, quotes or line breaks must "
            f"stand in double quotes."
        ) from None
    return table.rename(columns=dict(enumerate(header)))[list(columns)].fillna("")


SEPARATORS = {"\t": "tab", ";": "semicolon", "|": "bar"}
TO_UTF8 = "Convert it, for instance with: iconv -f latin1 -t utf-8 IN.csv > OUT.csv"


def read_header(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), None)
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8. {TO_UTF8}") from None
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}.") from None
    if not header:
        raise InputError(f"{path} is empty. The first line must hold the column names.")
    return [name.strip() for name in header]
