"""One training text with its labels, whatever file it came from."""

from typing import NamedTuple


class Sample(NamedTuple):
    """A chat or a document: exactly one of messages and segments is there."""

    uuid: str
    source: str  # whose figures it counts to
    messages: tuple[dict[str, str], ...] | None  # {"role": …, "content": …}, contents joined to one text
    segments: tuple[str, ...] | None  # texts, laid end to end
