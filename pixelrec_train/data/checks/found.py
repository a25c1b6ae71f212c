"""What is found in files of samples: counts, what is odd, what is wrong and where; it adds up over groups."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from pixelrec_train.data.samples.cells import Remarks

SHOWN = 20  # places of a kind; the rest is counted


class Group(NamedTuple):
    """A row group to check."""

    path: object
    number: int  # in its file
    rows: int
    begin: int  # rows of all groups before it


class Wrong(dict):
    """{what: [count, first places]}"""

    def add(self, what, *places, count=1):
        kind = self.setdefault(what, [0, []])
        kind[0] += count
        kind[1] += places[: SHOWN - len(kind[1])]

    def merge(self, other):
        for what, (count, places) in other.items():
            self.add(what, *places, count=count)


class Seen(dict):
    """{source: set of numbers of ids}"""

    def merge(self, other):
        for source, numbers in other.items():
            self.setdefault(source, set()).update(numbers)


@dataclass
class Found:
    """What one or more groups hold."""

    hashes: list = field(default_factory=list)  # of [rows] uint64, 8 bytes of each uuid's digest
    marks: list = field(default_factory=list)  # of [rows] same_samples.MARK
    chats: Counter = field(default_factory=Counter)  # samples of each source
    documents: Counter = field(default_factory=Counter)
    characters: Counter = field(default_factory=Counter)
    measured: Counter = field(default_factory=Counter)  # samples whose tokens were counted
    tokens: Counter = field(default_factory=Counter)
    labels: Counter = field(default_factory=Counter)
    chat_lengths: list = field(default_factory=list)  # of [n] int32: tokens where they are counted,
    document_lengths: list = field(default_factory=list)  # else characters
    id_answers: Counter = field(default_factory=Counter)  # samples of each source whose answer is ids alone
    itemic: Counter = field(default_factory=Counter)  # itemic tokens of each (source, level)
    seen: Seen = field(default_factory=Seen)  # ids of the catalogue in each source
    words: Remarks = field(default_factory=Remarks)  # of (special word, whether its sample is about ids)
    wrong: Wrong = field(default_factory=Wrong)
    remarks: Remarks = field(default_factory=Remarks)  # look at it
    notes: Remarks = field(default_factory=Remarks)  # good data have it, too

    def merge(self, other):
        """Add those of groups that come later."""
        for name, more in vars(other).items():
            mine = getattr(self, name)
            if hasattr(mine, "merge"):
                mine.merge(more)
            else:
                mine += more
