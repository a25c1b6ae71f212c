"""What the cells of a row hold as a Sample, in all the forms that its columns are written in."""

import json
import math
from typing import NamedTuple

from pixelrec_train.data.samples import Sample
from pixelrec_train.errors import first_line

CONTENT = ("messages", "message", "segments", "conversations")
ROLES = ("system", "user", "assistant", "tool")
READ_KEYS = {"role", "content"}
SPEAKERS = {"human": "user", "gpt": "assistant"}  # in the place of roles where a message has "from", "value"
NO_TEXT = "parts that are no text, left out"
UNREAD_KEYS = "keys of messages that are not read"
BOTH = "rows with messages and segments, of which messages are taken"


class Remarks(dict):
    """{(source, what): [count, first place]}: what is odd in samples that are taken all the same."""

    def add(self, source, what, place, count=1):
        self.setdefault((source, what), [0, place])[0] += count

    def merge(self, other):
        """Add those of rows that come later."""
        for (source, what), (count, place) in other.items():
            self.add(source, what, place, count)

    def lines(self):
        for (source, what), (count, place) in self.items():
            yield f"{source}: {what}: {count:,}, the first in {place}"


class Odd(Exception):
    """A row is no sample: the words of a Problem."""


class Row(NamedTuple):
    """Makes the sample of a row; each method raises Odd where there is none."""

    path: object
    number: int
    remarks: Remarks

    def sample(self, cells):
        """cells: {column: value}"""
        uuid, source = text_of(cells["uuid"], "uuid"), text_of(cells["source"], "source")
        messages = listed(cells.get("messages"), "messages") or listed(cells.get("message"), "message")
        messages = messages or conversation(cells.get("conversations"))
        segments = listed(cells.get("segments"), "segments")
        if messages:
            if segments:
                self.remark(source, BOTH)
            chat = tuple(self.message(source, *numbered) for numbered in enumerate(messages, 1))
            return Sample(uuid, source, chat, None)
        if not segments:
            there = [name for name in CONTENT if not nothing(cells.get(name))]
            raise Odd(f"{there[0]} is empty" if there else "it has neither messages nor segments")
        texts = tuple(self.texts(segments, source, "segment"))
        if not any(texts):
            raise Odd("segments hold no text")
        return Sample(uuid, source, None, texts)

    def message(self, source, number, message):
        """{"role": …, "content": …} with the content as one text."""
        if not isinstance(message, dict):
            raise Odd("a message is no object", f"message {number} is {shown(message)}")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            what = f"message {number} has {'none' if role is None else shown(role)}"
            raise Odd(f"a role is not one of {', '.join(ROLES)}", what)
        if len(message) > 2 and (more := {k for k, v in message.items() if v is not None} - READ_KEYS):
            self.remark(
                source, f"{UNREAD_KEYS} ({printable(', '.join(sorted(more)))[:60]})", f"message {number}"
            )
        if isinstance(content, dict) and is_text(content):
            content = [content]
        if not isinstance(content, str | list) or content == []:
            what = f"that of message {number} is {shown(content)}"
            raise Odd("a content is no text and no list of texts", what)
        parts = [content] if isinstance(content, str) else content
        return {"role": role, "content": "".join(self.texts(parts, source, f"message {number}, part"))}

    def texts(self, parts, source, name):
        """Yields those parts that are a text: a string, or {"type": "text", "text": …}."""
        for number, part in enumerate(parts, 1):
            text = part.get("text") if is_text(part) else part
            if isinstance(text, str):
                yield text if text.isascii() else encodable(text, f"{name} {number}")
            elif is_text(part):
                raise Odd('something of type "text" has no text', f"{name} {number}")
            else:
                self.remark(source, NO_TEXT, f"{name} {number}: {shown(part)}")

    def remark(self, source, what, detail=""):
        detail = f" ({detail})" if detail else ""
        self.remarks.add(source, what, f"{self.path} row {self.number:,}{detail}")


def text_of(value, name):
    """uuid and source are texts that are not empty."""
    if nothing(value):
        raise Odd(f"{name} is missing")
    if isinstance(value, bytes):
        raise Odd(f"{name} is not UTF-8 text")
    if not isinstance(value, str):
        raise Odd(f"{name} is no text", shown(value))
    if not value.strip():
        raise Odd(f"{name} is empty")
    return value


def conversation(value):
    """The messages of a cell of conversations: {"role", "content"}, or {"from", "value"}."""
    return [
        {"role": SPEAKERS.get(message["from"], message["from"]), "content": message.get("value")}
        if isinstance(message, dict) and isinstance(message.get("from"), str)
        else message
        for message in listed(value, "conversations") or ()
    ]


def listed(value, name):
    """The list that a cell holds, as JSON text or as it is; None where it holds nothing."""
    if nothing(value):
        return None
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except UnicodeDecodeError:
            raise Odd(f"{name} is not UTF-8 text") from None
        except (ValueError, RecursionError) as error:
            raise Odd(f"{name} is not JSON", first_line(error).rstrip(".")) from None
    if value is not None and not isinstance(value, list):
        raise Odd(f"{name} is no list", shown(value))
    return value


def nothing(value):
    return value is None or isinstance(value, float) and math.isnan(value)


def is_text(part):
    return isinstance(part, dict) and part.get("type") == "text"


def encodable(text, where):
    """The text. JSON may hold half of a surrogate pair, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Odd("a text holds half of a surrogate pair, a broken \\u…", where) from None
    return text


def shown(value, most=60):
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text):
    return text.encode(errors="replace").decode()
