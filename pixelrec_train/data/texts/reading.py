"""Files of texts and chats, row by row: .txt, JSON lines, a JSON list, Parquet; packed or not.

What a file is, its first bytes say, not its name; only a .txt file is text whatever it begins with.
"""

import codecs
import glob
import io
import json
from pathlib import Path
from typing import NamedTuple

from pixelrec_train.data.samples.cells import Odd
from pixelrec_train.data.table_files import (
    DAMAGES,
    GUESSES,
    damaged,
    find_encoding,
    open_unpacked,
    parquet_file,
)
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import missing, refuse_repeated_keys

ENDINGS = (".txt", ".jsonl", ".json", ".ndjson", ".parquet")
PACKINGS = ("", ".gz", ".bz2", ".zst", ".zip")
LINE, FILE = "line", "file"


class Place(NamedTuple):
    path: Path
    what: str  # "line", "row" or "entry"
    number: int  # from 1

    def __str__(self):
        return f"{self.path} {self.what} {self.number:,}"


def files_of(names, flag_name):
    """[Path] of files, directories (all that end as ENDINGS) and patterns, in the order they are named.

    Raises:
        InputError: nothing is there, or a file stands twice.
    """
    found = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            there = sorted(file for file in path.rglob("*") if is_text_file(file))
        elif path.exists():
            there = [path]
        else:
            there = sorted(Path(p) for p in glob.glob(name, recursive=True) if Path(p).is_file())
            if not there and not glob.has_magic(name):
                raise missing(path, flag_name)
        if not there:
            raise InputError(f"{flag_name} {name} holds no file that ends in {', '.join(ENDINGS)}.")
        found += there
    if twice := [file for file in found if found.count(file) > 1]:
        raise InputError(f"{flag_name} names {twice[0]} twice. Name it once.")
    return found


def is_text_file(file):
    hidden = file.name.startswith((".", "_"))
    return file.is_file() and not hidden and file.name.lower().endswith(
        tuple(end + packing for end in ENDINGS for packing in PACKINGS)
    )  # fmt: skip


def rows_of(path, document_by=LINE):
    """Yields (Place, row): a str of a text file, else the object that JSON or Parquet holds, or an Odd.

    Args:
        document_by: of a text file: "line", each that is not blank; or "file".

    Raises:
        InputError: the file is empty, damaged, or is none of what is read here.
    """
    path = Path(path)
    with open_unpacked(path) as file:
        begin = file.read(512)
    if begin[:4] == b"PAR1":
        yield from parquet_rows(path)
        return
    encoding, _ = find_encoding(path, GUESSES)
    if begin.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    with io.TextIOWrapper(open_unpacked(path), encoding, newline="") as file:
        if ".txt" in [suffix.lower() for suffix in path.suffixes[-2:]]:
            yield from text_rows(path, file, document_by)
            return
        first = begin.decode(encoding, "ignore").lstrip("\ufeff").lstrip()[:1]
        if first == "[":
            yield from listed_rows(path, file)
        elif first == "{":
            yield from json_lines(path, file)
        elif not first:
            raise InputError(f"{path} is empty.")
        else:
            raise InputError(
                f"{path} begins with {first!r}: it is no JSON lines, no JSON list and no Parquet file. Plain "
                f"text must be called .txt."
            )


def text_rows(path, file, document_by):
    if document_by == FILE:
        text = file.read()
        if text.strip():
            yield Place(path, "line", 1), text
        return
    for number, line in enumerate(file, 1):
        if line := line.rstrip("\r\n"):
            if line.strip():
                yield Place(path, "line", number), line


def json_lines(path, file):
    for number, line in enumerate(file, 1):
        if line.strip():
            yield Place(path, "line", number), parsed(line)


def parsed(text):
    try:
        return json.loads(text, object_pairs_hook=refuse_repeated_keys)
    except (ValueError, RecursionError) as error:
        return Odd("it is not JSON", first_line(error).rstrip("."))


def listed_rows(path, file):
    try:
        rows = json.load(file, object_pairs_hook=refuse_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {first_line(error)}") from None
    for number, row in enumerate(rows, 1):
        yield Place(path, "entry", number), row


def parquet_rows(path):
    try:
        number = 0
        for batch in parquet_file(path).iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield Place(path, "row", number), row
    except DAMAGES as error:
        raise damaged(path, error) from None
