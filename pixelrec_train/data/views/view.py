"""A view is data: what it reads, how it asks, what it answers. One base makes samples of it.

items + histories + ids, of one part of a split -> Rows (what is said) -> Samples (in the view's words)
"""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pixelrec_train.data.samples import Sample
from pixelrec_train.data.views.parts import Part
from pixelrec_train.errors import InputError

CHAT, SEGMENTS = "chat", "segments"
TEXTS, LABELS = "texts", "labels"  # what a view may need besides ids
FLAGS = {TEXTS: "--text_data", LABELS: "--label_column"}
PARAPHRASE_SEED = 42
NAMESPACE = uuid.UUID("6c1f3f3e-5b0e-5d55-9a0c-3b7c6a1f9a51")  # of our samples' names


@dataclass(frozen=True)
class Known:
    """What is known of the catalogue's items, whoever took them; rows by item number."""

    item_ids: list[str]
    ids: list[str]  # as an LLM reads them: "<|sid_begin|><s_a_1>…<|sid_end|>"
    text_keys: tuple[str, ...] = ()
    fields: list[tuple[str, ...] | None] | None = None  # values of text_keys; None = of no row; or not read

    def said(self, items):
        """Item numbers as an LLM reads them, nothing between."""
        return "".join([self.ids[item] for item in items])


class Asked(NamedTuple):
    """What a person may choose."""

    form: str  # CHAT or SEGMENTS
    history: int  # items, at most
    targets: int  # items, at most
    samples: int  # of a sequence, at most
    thoughts: bool  # whether reasons begin with a thought
    positive: frozenset[str] = frozenset()  # labels that are a yes


class Row(NamedTuple):
    """What a sample says, before it is put in words."""

    key: tuple  # names it within its view and part
    said: dict[str, str]  # what {…} in the view's words stands for
    facts: dict  # its metadata


class LeftOut(NamedTuple):
    """Stands in the place of a Row or Sample that cannot be made."""

    why: str


class View(NamedTuple):
    """A way to make samples."""

    task: str  # the samples' source
    splits: tuple[str, ...]  # the parts it may read
    rows: Callable[[Known, Part, Asked], Iterator[Row | LeftOut]]
    system: str = ""  # of its chats; may be ""
    chats: tuple[tuple[str, str], ...] = ()  # (prompt, answer), paraphrases
    documents: tuple[str, ...] = ()  # of its segments, paraphrases
    needs: tuple[str, ...] = ()

    @property
    def forms(self):
        """Those it has, its own first."""
        return (CHAT,) * bool(self.chats) + (SEGMENTS,) * bool(self.documents)

    def check(self, split, form, has):
        """Raises InputError where it has no such samples. has: what is there of what views need."""
        if split not in self.splits:
            raise InputError(
                f"--task {self.task} is made of {' and '.join(self.splits)} alone, not of {split}. "
                f"Leave it out."
            )
        if form not in self.forms:
            raise InputError(
                f"--task {self.task} has no form {form}, only {self.forms[0]}. Leave it out, or --form."
            )
        for need in self.needs:
            if need not in has:
                raise InputError(
                    f"--task {self.task} is made from {need}: it needs {FLAGS[need]}. Give it, or leave the "
                    f"task out."
                )

    def samples(self, known, part, asked, seed):
        """(Sample, facts) of every row, in their order; (LeftOut, {}) where there is none."""
        if part.name not in self.splits:
            raise ValueError(f"{self.task} may not read {part.name}")
        for row in self.rows(known, part, asked):
            if isinstance(row, LeftOut):
                yield row, {}
                continue
            name = sample_name(self.task, part.name, asked.form, row.key)
            if asked.form == CHAT:
                prompt, answer = drawn(self.chats, seed, name)
                turn = {"role": "assistant", "content": answer.format_map(row.said)}
                messages = (*self.question(prompt.format_map(row.said)), turn)
                yield Sample(name, self.task, messages, None), row.facts
            else:
                text = drawn(self.documents, seed, name).format_map(row.said)
                yield Sample(name, self.task, None, (text,)), row.facts

    def question(self, content):
        """The messages that an answer follows."""
        system = ({"role": "system", "content": self.system},) if self.system else ()
        return *system, {"role": "user", "content": content}

    def prompt(self, said, key, split, seed):
        """The messages of a sample without its answer, as samples() puts them; for evaluation."""
        prompt, _ = drawn(self.chats, seed, sample_name(self.task, split, CHAT, key))
        return self.question(prompt.format_map(said))


def sample_name(task, split, form, key):
    """The uuid of a sample; the same whatever else there is."""
    return str(uuid.uuid5(NAMESPACE, repr((task, split, form, *key))))


def drawn(paraphrases, seed, name):
    """One of them, by seed and sample alone: the number and order of samples make no difference."""
    if len(paraphrases) == 1:
        return paraphrases[0]
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return paraphrases[int.from_bytes(digest, "big") % len(paraphrases)]
