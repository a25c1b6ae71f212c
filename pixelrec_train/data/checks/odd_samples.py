"""What stands in files of samples, row by row: OpenOneRec's field rules, counts, lengths, ids and answers.

Memory: some 40 bytes a row (more while repeats are looked for), whatever the rows hold.
"""

import functools
import json
from array import array
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.checks.answers import asked_of, check_answer
from pixelrec_train.data.checks.found import Found
from pixelrec_train.data.checks.held_out import HeldOutRows
from pixelrec_train.data.checks.ids_in_texts import BARE, NO_ITEM, SHORT, Catalogue, any_id
from pixelrec_train.data.checks.same_samples import MARK, NO_MARK, NO_UUID, digest, mark_of
from pixelrec_train.data.checks.special_words import count_words
from pixelrec_train.data.samples import rows
from pixelrec_train.data.samples.cells import CONTENT, Odd, Row, nothing, shown
from pixelrec_train.errors import InputError

ENCODED = 64  # samples at a time
PREFIXES = "type_d_prefix"  # sources that ask by the first levels of ids
NOTHING_LEARNED = "chats without a message of the assistant, of which nothing is learned"
TWICE = "chats with two messages of one role in succession"
LATE_SYSTEM = "chats with a system message that is not the first"


class Tokens(NamedTuple):
    """How lengths are counted in tokens: of every so many-th row."""

    model_dir: str
    every: int
    only_assistant_loss: bool = True
    add_think_pattern: bool = False


class Against(NamedTuple):
    """What rows are held against, as far as it is known."""

    tokens: Tokens | None = None  # None = characters are counted
    catalogue: Catalogue | None = None
    held_out: HeldOutRows | None = None


def check_group(group, against):
    """Found of a row group.

    Raises:
        InputError: there is no tokenizer.
    """
    found, hashes, marks, lengths, chosen = Found(), array("Q"), [], (array("i"), array("i")), []
    tokens = against.tokens
    renderer = tokens and renderer_of(tokens.model_dir, tokens.only_assistant_loss, tokens.add_think_pattern)
    try:
        columns = ("uuid", "source", "metadata", *CONTENT)
        for row, cells in rows.rows(group.path, group.number, columns):
            hashes.append(digest(cells["uuid"]))
            place = f"{group.path} row {row:,}"
            sample, facts = checked(cells, Row(group.path, row, found.remarks), found.wrong, place)
            if sample is None:
                marks.append(NO_MARK)
                continue
            marks.append(check_texts(sample, facts, against, found, place))
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
    found.hashes, found.marks = [np.array(hashes, np.uint64)], [np.zeros(group.rows, MARK)]
    found.marks[0][: len(marks)] = np.array(marks, MARK)
    found.chat_lengths, found.document_lengths = ([np.array(of, np.int32)] for of in lengths)
    return found


def check_texts(sample, facts, against, found, place):
    """The MARK of a sample, once what it says is held against the catalogue and what is held out."""
    asked, source = asked_of(sample.messages or ()), sample.source
    if asked:
        check_answer(asked, source, facts, found, place)
        said = asked.before, asked.answer
    else:
        said = "", "\n".join(m["content"] for m in sample.messages or () if m["role"] != "system")
        said = said if sample.messages else ("", "".join(sample.segments))
    if against.tokens:
        texts = sample.segments or [m["content"] for m in sample.messages]
        about_items = any("<" in text and any_id().search(text) for text in said)
        count_words(texts, bool(about_items), found, place)
    numbers = [], []
    if against.catalogue:
        numbers = [known_ids(text, source, against.catalogue, found, place) for text in said]
    if against.held_out:
        against.held_out.check(source, facts, *numbers, found, place)
    return mark_of(sample, asked and asked.answer)


def known_ids(text, source, catalogue, found, place):
    """Numbers of the ids in a text that items have, in order; counted, and what is wrong of others added to
    Found."""
    spelled, numbers = catalogue.read(text)
    if None in numbers:
        for i in [i for i, number in enumerate(numbers) if number is None]:
            numbers[i] = odd_id(spelled[i], source, catalogue, found, place)
        numbers = [number for number in numbers if number is not None]
    if numbers:
        found.seen.setdefault(source, set()).update(numbers)
        for level, count in enumerate(catalogue.tokens(numbers)):
            found.itemic[source, level] += count
    return numbers


def odd_id(spelled, source, catalogue, found, place):
    """The number of an id that is not spelled as the catalogue's are; None where no item has it."""
    number, levels, odd = catalogue.odd(spelled)
    if odd == BARE:
        found.remarks.add(source, BARE, f"{place} ({spelled[:60]})")
        return number
    for level in levels:
        found.itemic[source, level] += 1
    if not (odd in (SHORT, NO_ITEM) and source.startswith(PREFIXES) and catalogue.is_beginning(spelled)):
        found.wrong.add(odd, f"{place} ({spelled[:100]})")
    return None


def checked(cells, row, wrong, place):
    """(the Sample of a row, or None; its metadata); all that is against the rules is added to `wrong`."""
    sample, facts = None, {}
    try:
        sample = row.sample(cells)
        if sample.messages:
            check_chat(sample, row)
    except Odd as problem:
        wrong.add(problem.args[0], at(place, *problem.args[1:]))
    try:
        facts = metadata_of(cells.get("metadata"))
    except Odd as problem:
        wrong.add(problem.args[0], at(place, *problem.args[1:]))
    return sample, facts


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


def metadata_of(value):
    """The object that JSON text holds; {} of nothing, as training does not read it. Raises Odd."""
    if nothing(value) or value == "{}":
        return {}
    try:
        inside = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise Odd("metadata is not JSON", shown(value)) from None
    if not isinstance(inside, dict):
        raise Odd("metadata is no JSON object", shown(value))
    return inside


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
