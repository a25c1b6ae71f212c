"""What stands in files of samples, row by row: OpenOneRec's field rules, counts, lengths.

Memory: some 12 bytes a row (24 more while repeats are looked for), whatever the rows hold.
"""

import functools
import hashlib
import json
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.samples import rows
from pixelrec_train.data.samples.cells import CONTENT, Odd, Remarks, Row, nothing, shown
from pixelrec_train.errors import InputError

SHOWN = 20  # places of a kind; the rest is counted
ENCODED = 64  # samples at a time
NO_UUID = 0  # in the place of a hash
REPEATED = "uuid stands in an earlier row as well"
NOTHING_LEARNED = "chats without a message of the assistant, of which nothing is learned"
TWICE = "chats with two messages of one role in succession"
LATE_SYSTEM = "chats with a system message that is not the first"


class Group(NamedTuple):
    """A row group to check."""

    path: object
    number: int  # in its file
    rows: int
    begin: int  # rows of all groups before it


class Tokens(NamedTuple):
    """How lengths are counted in tokens: of every so many-th row."""

    model_dir: str
    every: int
    only_assistant_loss: bool = True
    add_think_pattern: bool = False


class Wrong(dict):
    """{what: [count, first places]}"""

    def add(self, what, *places, count=1):
        kind = self.setdefault(what, [0, []])
        kind[0] += count
        kind[1] += places[: SHOWN - len(kind[1])]


@dataclass
class Found:
    """What one or more groups hold."""

    hashes: list = field(default_factory=list)  # of [rows] uint64, 8 bytes of each uuid's digest
    chats: Counter = field(default_factory=Counter)  # samples of each source
    documents: Counter = field(default_factory=Counter)
    characters: Counter = field(default_factory=Counter)
    measured: Counter = field(default_factory=Counter)  # samples whose tokens were counted
    tokens: Counter = field(default_factory=Counter)
    labels: Counter = field(default_factory=Counter)
    chat_lengths: list = field(default_factory=list)  # of [n] int32: tokens where they are counted,
    document_lengths: list = field(default_factory=list)  # else characters
    wrong: Wrong = field(default_factory=Wrong)
    remarks: Remarks = field(default_factory=Remarks)

    def merge(self, other):
        """Add those of groups that come later."""
        for name, more in vars(other).items():
            mine = getattr(self, name)
            if name == "wrong":
                for what, (count, places) in more.items():
                    mine.add(what, *places, count=count)
            elif name == "remarks":
                mine.merge(more)
            else:
                mine += more


def check_group(group, tokens=None):
    """Found of a row group.

    Args:
        tokens: Tokens; None = characters are counted.

    Raises:
        InputError: there is no tokenizer.
    """
    found, hashes, lengths, chosen = Found(), array("Q"), (array("i"), array("i")), []
    renderer = tokens and renderer_of(tokens.model_dir, tokens.only_assistant_loss, tokens.add_think_pattern)
    try:
        columns = ("uuid", "source", "metadata", *CONTENT)
        for row, cells in rows.rows(group.path, group.number, columns):
            hashes.append(digest(cells["uuid"]))
            place = f"{group.path} row {row:,}"
            if (sample := checked(cells, Row(group.path, row, found.remarks), found.wrong, place)) is None:
                continue
            is_document = sample.messages is None
            texts = sample.segments if is_document else [m["content"] for m in sample.messages]
            found.characters[sample.source] += (size := sum(map(len, texts)))
            (found.documents if is_document else found.chats)[sample.source] += 1
            if tokens is None:
                lengths[is_document].append(size)
            elif (group.begin + len(hashes) - 1) % tokens.every == 0:
                chosen.append((sample, place))
            if len(chosen) == ENCODED:
                measure(chosen, renderer, found, lengths)
        measure(chosen, renderer, found, lengths)
    except InputError as error:
        found.wrong.add("a file cannot be read to its end", str(error).rstrip("."))
    hashes.extend([NO_UUID] * (group.rows - len(hashes)))
    found.hashes = [np.array(hashes, np.uint64)]
    found.chat_lengths, found.document_lengths = ([np.array(of, np.int32)] for of in lengths)
    return found


def checked(cells, row, wrong, place):
    """The Sample of a row, or None; all that is against the rules is added to `wrong`."""
    sample = None
    try:
        sample = row.sample(cells)
        if sample.messages:
            check_chat(sample, row)
    except Odd as problem:
        wrong.add(problem.args[0], at(place, *problem.args[1:]))
    try:
        check_metadata(cells.get("metadata"))
    except Odd as problem:
        wrong.add(problem.args[0], at(place, *problem.args[1:]))
    return sample


def at(place, detail=""):
    return f"{place} ({detail})" if detail else place


def check_chat(sample, row):
    """Remarks about the order of its messages; raises Odd where the assistant speaks first."""
    roles = [message["role"] for message in sample.messages]
    if "assistant" not in roles:
        row.remark(sample.source, NOTHING_LEARNED)
    if "system" in roles[1:]:
        row.remark(sample.source, LATE_SYSTEM)
    if any(a == b for a, b in zip(roles, roles[1:], strict=False) if a != "tool"):
        row.remark(sample.source, TWICE)
    if roles[0] == "assistant":
        raise Odd("the first message is the assistant's")


def check_metadata(value):
    """It is JSON text that holds an object; or nothing, as nobody reads it. Raises Odd."""
    if nothing(value) or value == "{}":
        return
    try:
        inside = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise Odd("metadata is not JSON", shown(value)) from None
    if not isinstance(inside, dict):
        raise Odd("metadata is no JSON object", shown(value))


def digest(uuid):
    """8 bytes of it as a number; of 10 million uuids, two fall together with a chance of 1 in 400,000."""
    if not isinstance(uuid, str):
        return NO_UUID
    return int.from_bytes(hashlib.blake2b(uuid.encode(), digest_size=8).digest(), "little")


def measure(chosen, renderer, found, lengths):
    """Count the tokens of some samples, and empty the list."""
    if not chosen:
        return
    texts, samples = [], []
    for sample, place in chosen:
        try:
            texts.append(renderer.text(sample))
            samples.append(sample)
        except InputError as error:
            found.wrong.add("the chat template refuses a chat", at(place, str(error).rstrip(".")))
    for sample, (ids, is_label) in zip(samples, renderer.tokens(texts), strict=True):
        lengths[sample.messages is None].append(len(ids))
        found.measured[sample.source] += 1
        found.tokens[sample.source] += len(ids)
        found.labels[sample.source] += int(is_label.sum())
    chosen.clear()


@functools.cache
def renderer_of(model_dir, *how):
    # Late: this takes seconds, and not everybody counts tokens.
    from pixelrec_train.data.tokens.chat import Renderer
    from pixelrec_train.libraries import load_tokenizer

    return Renderer(load_tokenizer(model_dir), *how)


def repeats(hashes, groups):
    """(number of rows whose uuid stands in an earlier row, first places).

    Args:
        hashes: [all rows] uint64, in the order of the groups.
    """
    order = np.argsort(hashes, kind="stable")
    values = hashes[order]
    again = np.flatnonzero((values[1:] == values[:-1]) & (values[1:] != NO_UUID))
    first = again[np.argsort(order[again + 1])[:SHOWN]]
    places = [f"{place_of(order[i + 1], groups)} (= {place_of(order[i], groups)})" for i in first]
    return len(again), places


def place_of(number, groups):
    """ "FILE row N" of a row of all groups together."""
    begins = [group.begin for group in groups]
    group = groups[int(np.searchsorted(begins, number, side="right")) - 1]
    before = sum(g.rows for g in groups if g.path == group.path and g.number < group.number)
    return f"{group.path} row {before + int(number) - group.begin + 1:,}"
