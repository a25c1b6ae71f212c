"""Rows with the line of the file they begin in, and remarks that send a person there.

Slower than Table.blocks, and more patient: what that refuses is counted here.
"""

import csv
import itertools
from dataclasses import dataclass

from pixelrec_train.data.tables import JSON_LINES, PARQUET, as_text, open_table

SHOWN = 5  # examples of a kind; the rest is counted


@dataclass(frozen=True)
class Remark:
    """Something about a file that a person may want to know."""

    count: int
    noun: str  # of what there are so many, in the singular
    what: str
    examples: tuple[str, ...] = ()  # "12" for line 12, or "12 (= line 4)"
    harmless: bool = False  # it happens in good data as well
    label: str = "line"  # what stands before the examples

    def __str__(self):
        return f"{counted(self.count, self.noun)} {self.what}"

    def where(self, width=100):
        """Where to look: as many examples as fit into a line of so many characters, and at least one."""
        label = f"{self.label}s " if self.label and len(self.examples) > 1 else f"{self.label} ".lstrip()
        text = label + ", ".join(self.examples[:1])
        for example in self.examples[1:]:
            if len(text) + len(example) + len(", , …") > width:
                return f"{text}, …"
            text += f", {example}"
        return text + ", …" * (self.count > len(self.examples))


def counted(n, noun):
    """1 row, 2 rows"""
    return f"{n:,} {noun}{'s' * (n != 1)}"


class Examples:
    """Counts what it is given, and keeps the first few."""

    def __init__(self, count=0, first=()):
        self.count, self.first = count, [str(example) for example in first]

    def add(self, example):
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(str(example))

    def remark(self, noun, what, **more):
        """[Remark], or [] when nothing was counted."""
        return [Remark(self.count, noun, what, tuple(self.first), **more)] * bool(self.count)


class LinedRows:
    """Iterates over (line, row): the line a row begins in, as an editor counts it, and its fields.

    A row has as many fields as the header: missing ones are "", more are cut off. Blank lines are no rows,
    but are counted as lines. Where Table.blocks refuses a CSV in mid-row (an open quote), what can be read is
    read. Of Parquet the "line" is the number of the row.
    """

    def __init__(self, path, encoding=None):
        self.table = open_table(path, encoding)
        self.header = self.table.names
        self.narrow, self.wide = Examples(), Examples()  # rows with fewer fields than the header, or more

    def __iter__(self):
        if self.table.delimiter == PARQUET:
            yield from enumerate(map(list, self.table.rows(self.header)), 1)
        elif self.table.delimiter == JSON_LINES:
            for line, record in self.table.records():
                yield line, [as_text(record.get(name)) for name in self.header]
        else:
            csv.field_size_limit(1 << 30)
            with self.table.open_text() as file:
                reader = csv.reader(file, delimiter=self.table.delimiter)
                next(reader)
                yield from self.rows(reader)

    def rows(self, reader):
        width, ended = len(self.header), reader.line_num
        for row in reader:
            begun, ended = ended + 1, reader.line_num
            if not row or len(row) == 1 < width and row[0].isspace():
                continue
            if len(row) < width:
                self.narrow.add(f"{begun} ({len(row)} of {width})")
            elif any(row[width:]):
                self.wide.add(f"{begun} ({len(row)} of {width})")
            yield begun, row[:width] + [""] * (width - len(row))

    def blocks(self, size=1 << 16):
        """([n] lines, [n] rows) of `size` rows at a time."""
        rows = iter(self)
        while part := list(itertools.islice(rows, size)):
            yield tuple(zip(*part, strict=True))

    def refused(self):
        """About the rows iterated over for which the loader refuses the file."""
        return self.wide.remark("row", "with more fields than the header, so the file is refused")

    def remarks(self):
        """About the shape of the rows that were iterated over."""
        narrow = self.narrow.remark("row", "with fewer fields than the header, the rest read as empty")
        return [*self.refused(), *narrow]
