"""Tables that users bring, read as text: CSV in its spellings, JSON lines and Parquet, packed or not.

What a file is, is told by its content, not by its name. An id or a text stays as it is written: "NA", 007 and
9007199254740993. (pandas' engine="pyarrow" makes numbers of them whatever dtype it is told, so pyarrow is
asked directly; what it refuses, and all that is quoted, goes to pandas' C engine.)

Reading takes pandas and pyarrow, a second to import: who may find the data in the cache imports this late.
"""

import csv
import io
import itertools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from pixelrec_train.data.table_files import (
    BLOCK,
    BYTE_ORDER_MARKS,
    DAMAGES,
    GUESSES,
    damaged,
    find_encoding,
    of_beginning,
    open_unpacked,
    parquet_file,
)  # fmt: skip
from pixelrec_train.errors import InputError

ROWS = 1 << 14  # at once, where pyarrow does not count bytes
DELIMITERS = ",\t;|"
PARQUET, JSON_LINES = "Parquet", "JSON lines"  # in the place of a delimiter
HEADER_RECORDS = 1000  # JSON objects whose keys are the columns
TYPE = re.compile(":(token|token_seq|float|float_seq)$")  # RecBole writes it behind a column's name
OTHER_FILES = {
    b"\x89PNG": "a PNG", b"SQLite format": "an SQLite", b"%PDF": "a PDF", b"\xd0\xcf\x11\xe0": "an Excel",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A file with named columns. Nothing of it is kept in memory."""

    path: Path
    names: list[str]
    delimiter: str  # or PARQUET, JSON_LINES
    encoding: str = "utf-8"
    unquoted: bool = False  # UTF-8 without any quote

    def rows(self, columns):
        """The named columns, row by row as tuples of str."""
        for block in self.blocks(columns):
            yield from zip(*(column.to_pylist() for column in block), strict=True)

    def blocks(self, columns):
        """The named columns, some rows at a time, as lists of pyarrow string arrays; nothing is "".

        Blank lines are no rows, and a row shorter than the header has empty fields at its end. A list is its
        members with spaces between them.

        Raises:
            InputError: the file is malformed, or a row has more fields than the header.
        """
        if self.delimiter == PARQUET:
            with parquet_file(self.path) as file:
                for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
                    yield [texts_of(batch[column]) for column in columns]
        elif self.delimiter == JSON_LINES:
            records = (record for _, record in self.records())
            while part := list(itertools.islice(records, ROWS)):
                yield [pa.array([as_text(record.get(c)) for record in part], pa.string()) for c in columns]
        else:
            places, rows = [self.names.index(column) for column in columns], 0
            if self.unquoted:
                try:
                    for block in self.arrow_blocks(places):
                        yield block
                        rows += len(block[0])
                    return
                except pa.ArrowInvalid:  # a row with too few fields or too many, a blank line of spaces
                    pass
            for block in self.pandas_blocks(places):
                yield [column[rows:] for column in block]
                rows = max(rows - len(block[0]), 0)

    def arrow_blocks(self, places):
        """Of a CSV without quotes: several times as fast as pandas."""
        names = [str(place) for place in range(len(self.names))]
        wanted = [names[place] for place in places]
        reading = pa.csv.ReadOptions(
            column_names=names, skip_rows_after_names=1, block_size=BLOCK, use_threads=False
        )
        parsing = pa.csv.ParseOptions(delimiter=self.delimiter, quote_char=False)
        text = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=wanted)
        with open_unpacked(self.path) as file:
            for batch in pa.csv.open_csv(file, reading, parsing, text):
                yield [batch[name] for name in wanted]

    def pandas_blocks(self, places):
        width = len(self.names)  # and one more: rows may end in a comma that the header lacks
        try:
            with self.open_text() as file, pd.read_csv(
                file, sep=self.delimiter, header=None, names=range(width + 1), skiprows=1, index_col=False,
                dtype=str, keep_default_na=False, na_filter=False, chunksize=ROWS, engine="c",
            ) as frames:  # fmt: skip
                for frame in frames:
                    if (frame[width] != "").any():
                        raise malformed(self)
                    yield [pa.array(frame[place].to_numpy(), pa.string()) for place in places]
        except pd.errors.EmptyDataError:
            return
        except pd.errors.ParserError:
            raise malformed(self) from None

    def lined_rows(self):
        """(first line, last line, fields) of each row of a CSV, the header too: slow, and never refuses."""
        csv.field_size_limit(1 << 30)  # the usual 128 kB guard against hostile input and are no rule of CSV
        with self.open_text() as file:
            reader, begun = csv.reader(file, delimiter=self.delimiter), 1
            for row in reader:
                yield begun, reader.line_num, row
                begun = reader.line_num + 1

    def records(self):
        """(line, JSON object) of each line that is not blank; a number is the text that stands there."""
        with self.open_text() as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield number, json.loads(line, parse_int=str, parse_float=str) | {}
                except (ValueError, TypeError):
                    raise InputError(
                        f"{self.path} has no JSON object in line {number}; in JSON lines every line is one."
                    ) from None

    def open_text(self):
        return io.TextIOWrapper(open_unpacked(self.path), self.encoding, newline="")


def open_table(path, encoding=None):
    """Table of a file.

    Args:
        encoding: of its text; None = a byte order mark is believed, else the first of GUESSES that decodes.

    Raises:
        InputError: the file is empty, damaged, no table, or not in that encoding.
    """
    path = Path(path)
    try:
        with open_unpacked(path) as file:
            begin = file.read(20)
        if kind := of_beginning(OTHER_FILES, begin):
            raise InputError(f"{path} is {kind} file, not a table. Save it as comma-separated text.")
        if begin.startswith(b"PAR1"):
            with parquet_file(path) as file:
                return Table(path, file.schema_arrow.names, PARQUET)
        mark = encoding or of_beginning(BYTE_ORDER_MARKS, begin)
        return with_header(Table(path, [], ",", *find_encoding(path, [mark] if mark else GUESSES)))
    except DAMAGES as error:
        raise damaged(path, error) from None


def with_header(table):
    """The same with its column names, and the delimiter that splits the first line most."""
    with table.open_text() as file:
        line = file.readline()
    if line.lstrip().startswith("{"):
        table = replace(table, delimiter=JSON_LINES)
        some = itertools.islice(table.records(), HEADER_RECORDS)
        return replace(table, names=list(dict.fromkeys(name for _, record in some for name in record)))
    # The first of equally frequent ones; what is quoted does not count.
    table = replace(table, delimiter=max(DELIMITERS, key=re.sub('"[^"]*"', "", line).count))
    *_, header = next(table.lined_rows(), [()])
    if not header:
        raise InputError(f"{table.path} is empty. The first line must hold the column names.")
    return replace(table, names=[TYPE.sub("", name.strip()) for name in header])


def malformed(table):
    """The InputError of a CSV that pandas refuses, with the line of what is wrong."""
    width = len(table.names)
    for begun, ended, row in table.lined_rows():
        if any(row[width:]):
            detail = f"Expected {width} fields in line {ended}, saw {len(row)}"
            break
        detail = f"a quote is never closed, perhaps the one of line {begun}"
    return InputError(
        f"{table.path} is not well-formed CSV: {detail}. A field with commas, quotes or line "
        f"breaks must stand in double quotes."
    )


def texts_of(column):
    """A pyarrow array of any type as one of strings."""
    if pa.types.is_nested(column.type) or pa.types.is_dictionary(column.type):
        return pa.array([as_text(value) for value in column.to_pylist()], pa.string())
    return pc.fill_null(pc.cast(column, pa.string()), "")


def as_text(value):
    """A list as its members with spaces between them, nothing as ""."""
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(as_text, value)))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)
