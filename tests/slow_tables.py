"""The slow twin of pixelrec_train/data/tables.py: the reader of CSV that it replaced.

pyarrow reads well-formed rows, many times faster than a loop. From the first row it refuses, Python's csv
module goes on: it fills up rows that are too short, and knows the line of what is wrong.
"""

import csv
import io
import itertools
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from pixelrec_train.errors import InputError

BLOCK = 1 << 22  # bytes of a file that pyarrow reads at once; a longer row is left to the csv module
CAREFUL_BLOCK = 1 << 14  # rows


def read_rows(path, columns, hint="Rename them in the file's first line"):
    """The named columns of a CSV, row by row as tuples of str; otherwise as read_blocks."""
    for block in read_blocks(path, columns, hint):
        yield from zip(*(column.to_pylist() for column in block.columns), strict=True)


def read_blocks(path, columns, hint="Rename them in the file's first line"):
    """The named columns of a CSV, in this order, as RecordBatches of str; an empty field is "".

    BOM, CRLF, quoted newlines and quotes are CSV as usual; "NA", "null" and 007 stay the text they are.
    Blank lines are no rows, and a row shorter than the header has empty fields at its end.

    Raises:
        InputError: the file is empty, not UTF-8, malformed, lacks a column or has it twice, or a row has
            more fields than the header.
    """
    path = Path(path)
    header = read_header(path)
    check_columns(path, header, columns, hint)
    places = [header.index(c) for c in columns]
    rows = 0
    try:
        for block in fast_blocks(path, len(header)):
            yield block.select(places).rename_columns(list(columns))
            rows += len(block)
    except pa.ArrowInvalid:
        for block in careful_blocks(path, len(header), skip=rows):
            yield block.select(places).rename_columns(list(columns))


def fast_blocks(path, width):
    """RecordBatches of `width` columns of str.

    All columns are converted, as that checks the whole file for UTF-8.

    Raises:
        pa.ArrowInvalid: a row has more or fewer fields, is longer than BLOCK, or the file is malformed.
    """
    names = [str(i) for i in range(width)]
    closed = []

    def wrong_row(row):
        closed.append(row.text == last_line(width))
        return "skip" if closed[-1] else "error"

    with WithLastLine(path) as file:
        file.last = f"\n{last_line(width)}".encode()
        yield from pa.csv.open_csv(
            file,
            pa.csv.ReadOptions(
                column_names=names, skip_rows_after_names=1, block_size=BLOCK, use_threads=False
            ),
            pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=wrong_row),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    if not closed:
        raise pa.ArrowInvalid("a quote is open at the end of the file")  # pyarrow itself would let it pass


def last_line(width):
    """A line added to the file, with one field too many: it reads as this unless a quote before is open."""
    return "," * width + 'end"'


class WithLastLine(io.FileIO):
    """A file that goes on with the bytes `last`, in pieces that pyarrow can take."""

    def read(self, size=-1):
        data = super().read(size)
        if not data:
            data, self.last = self.last, b""
        elif data.endswith(b"\r") and len(data) > 1:
            # After a block that ends in \r pyarrow drops the \n of the next one, in a quoted text as well.
            data = data[:-1]
            self.seek(-1, io.SEEK_CUR)
        if b"\0" in data:
            raise pa.ArrowInvalid("a NUL byte")  # the csv module's loop says where
        return data


def careful_blocks(path, width, skip):
    """RecordBatches as of fast_blocks, from row `skip` on, and a sentence about what cannot be read."""
    rows = itertools.islice(careful_rows(path, width), skip, None)
    names = [str(i) for i in range(width)]
    while part := list(itertools.islice(rows, CAREFUL_BLOCK)):
        yield pa.record_batch([pa.array(c, pa.string()) for c in zip(*part, strict=True)], names)


def careful_rows(path, width):
    """Every row of the file as `width` strings.

    Raises:
        InputError: what is wrong, and in which line.
    """
    csv.field_size_limit(1 << 30)  # the usual 128 kB are a guard against hostile input, not a rule of CSV
    end = next(csv.reader([last_line(width)]))
    widest, begun, ended = None, 1, 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(itertools.chain(without_nul(path, file), [last_line(width)]))
            for row in itertools.islice(reader, 1, None):
                if row == end:
                    return
                if is_blank(row, width):
                    continue
                first_row = widest is None
                if first_row:
                    widest = width + (
                        row[width:] == [""]
                    )  # all rows may end in a comma that the header lacks
                if len(row) > widest or any(row[width:]):
                    raise malformed(
                        path,
                        f"the first row has more than {width} fields"
                        if first_row
                        else f"Expected {width} fields in line {reader.line_num}, saw {len(row)}",
                    )
                yield row[:width] + [""] * (width - len(row))
                begun, ended = ended + 1, reader.line_num
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except csv.Error as error:
        raise malformed(path, str(error)) from None
    raise malformed(path, f"a quote is never closed, perhaps the one of line {begun}")


def is_blank(row, width):
    """Whether these fields are a blank line, which is no row."""
    return not row or width > 1 and len(row) == 1 and row[0].isspace()


def without_nul(path, lines):
    """The same lines; what stands behind a NUL byte was cut off or never written."""
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise InputError(
                f"{path} has a NUL byte in line {number}: is it damaged, or not UTF-8? To remove them all: "
                f"tr -d '\\000' < IN.csv > OUT.csv."
            )
        yield line


def not_utf8(path):
    """The InputError of a file of which a line cannot be decoded."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start : error.start + 1].hex()
                return InputError(
                    f"{path} is not UTF-8 (byte {byte} in line {number}), perhaps latin1 or gb18030. "
                    f"{TO_UTF8.format('latin1')}"
                )


def malformed(path, detail):
    return InputError(
        f"{path} is not well-formed CSV: {detail}. A field with commas, quotes or line breaks must stand in "
        f"double quotes."
    )


def check_columns(path, header, columns, hint):
    missing = [c for c in columns if c not in header]
    if missing:
        separated = next(
            (name for s, name in SEPARATORS.items() if len(header) == 1 and s in header[0]), None
        )
        if separated:
            raise InputError(f"{path} looks {separated}-separated; its fields must be separated by commas.")
        if "\n" in "".join(header):
            raise malformed(path, "a quote of its first line is not closed there")
        first = "" if len(missing) < len(columns) else "The first line must hold the column names. "
        raise InputError(
            f"{path} has no column {', '.join(missing)}. Its columns are: "
            f"{textwrap.shorten(', '.join(header), 200, placeholder=' …')}. {first}{hint} "
            f"(columns are found by name, in any order)."
        )
    for c in columns:
        if header.count(c) > 1:
            raise InputError(f"{path} has the column {c} {header.count(c)} times. Keep one.")


SEPARATORS = {"\t": "tab", ";": "semicolon", "|": "bar"}
TO_UTF8 = "Convert it, for instance with: iconv -f {} -t utf-8 IN.csv > OUT.csv."
OTHER_FILES = {
    b"\x1f\x8b": "gzip", b"PK\3\4": "zip or Excel", b"PAR1": "Parquet", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd", b"\x89PNG": "PNG", b"SQLite format": "SQLite",
}  # fmt: skip
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_header(path):
    with open(path, "rb") as file:
        begin = file.read(20)
    for first, kind in OTHER_FILES.items():
        if begin.startswith(first):
            raise InputError(f"{path} is a {kind} file, not a CSV. Turn it into comma-separated text.")
    if begin.startswith(UTF16):
        raise InputError(f"{path} is UTF-16, not UTF-8. {TO_UTF8.format('utf-16')}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(without_nul(path, file)), None)
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}.") from None
    if not header:
        raise InputError(f"{path} is empty. The first line must hold the column names.")
    return [name.strip() for name in header]
