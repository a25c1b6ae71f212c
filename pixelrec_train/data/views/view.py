"""A view is data: what it reads, how it asks, what it answers. One base makes samples of it.

items + histories + ids, of one part of a split -> Rows (what is said) -> Samples (in the view's words)
"""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pixelrec_train.data.samples import Sample
from pixelrec_train.data.views.parts import Part, Stretch
from pixelrec_train.errors import InputError

CHAT, SEGMENTS = "chat", "segments"
TEXTS, LABELS = "texts", "labels"  # what a view may need besides ids
FLAGS = {TEXTS: "--text_data", LABELS: "--label_column"}
TITLE, DESCRIPTION, CATEGORIES = "title", "description", "categories"  # texts that views ask for by name
PARAPHRASE_SEED = 42
LONG, ALL = 512, 1 << 30  # items of a history; samples of a sequence
NAMESPACE = uuid.UUID("6c1f3f3e-5b0e-5d55-9a0c-3b7c6a1f9a51")  # of our samples' names


@dataclass(frozen=True)
class Known:
    """What is known of the catalogue's items, whoever took them; rows by item number."""

    item_ids: list[str]
    ids: list[str]  # as an LLM reads them: "<|sid_begin|><s_a_1>…<|sid_end|>"
    text_keys: tuple[str, ...] = ()
    fields: list[tuple[str, ...] | None] | None = None  # values of text_keys; None = of no row; or not read
    words: list[list[str]] | None = None  # the tokens of each item, without begin and end
    begin: str = ""  # what stands before them
    form: str = ""  # an id with a mark for each code: "<|sid_begin|><s_a_X><s_b_Y><|sid_end|>"
    categories_key: str = CATEGORIES  # the one of text_keys that holds categories
    category: str = ""  # what all these items are, as "office products"; for MiniOneRec's words

    @classmethod
    def spelled(cls, item_ids, codes, codec, codebook_sizes, **more):
        """Known of items with their codes ([N, L], ABSENT where an id is shorter), spelled by a Codec."""
        words = [codec.words(row, codebook_sizes) for row in codes.tolist()]
        ids = [codec.begin + "".join(own) + codec.end for own in words]
        return cls(
            item_ids, ids, words=words, begin=codec.begin, form=codec.form(len(codebook_sizes)), **more
        )

    def said(self, items, between=""):
        """Item numbers as an LLM reads them."""
        return between.join([self.ids[item] for item in items])

    def text(self, item, name):
        """The TITLE, DESCRIPTION or CATEGORIES of an item; "" where it has none."""
        key = self.categories_key if name == CATEGORIES else name
        fields = self.fields[item]
        return fields[self.text_keys.index(key)].strip() if fields else ""


class Asked(NamedTuple):
    """What a person may choose."""

    form: str | None  # CHAT or SEGMENTS; None, here and below = the view's own
    history: int | None  # items, at most
    targets: int  # items, at most
    samples: int | None  # of a sequence, at most
    thoughts: bool  # whether reasons begin with a thought
    positive: frozenset[str] = frozenset()  # labels that are a yes
    seed: int = PARAPHRASE_SEED


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
    texts: tuple[str, ...] = ()  # TITLE and so on: those it needs by name
    most_history: int = LONG  # items, at most, unless a person says otherwise
    most_samples: int = 1  # of a sequence, at most, unless a person says otherwise
    group: str = ""  # views whose rows are limited together
    asks: Callable[[Known, Stretch], dict[str, str]] | None = None  # what its prompt says of a history
    asks_with: tuple[str, ...] = ()  # those of `texts` that this says

    @property
    def asks_for_id(self):
        """Whether it can ask for a held-out user's next item: its answer begins with one item's id."""
        return self.asks is not None

    def settled(self, asked):
        """Asked with the view's own in the place of None."""
        own = {"form": self.forms[0], "history": self.most_history, "samples": self.most_samples}
        return asked._replace(**{name: value for name, value in own.items() if getattr(asked, name) is None})

    @property
    def forms(self):
        """Those it has, its own first."""
        return (CHAT,) * bool(self.chats) + (SEGMENTS,) * bool(self.documents)

    def check(self, split, form, has, text_keys=()):
        """Raises InputError where it has no such samples. has: what is there of what views need.

        text_keys: names of the texts that are read, CATEGORIES among them.
        """
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
        check_texts(f"--task {self.task}", self.texts, text_keys)

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
                yield (
                    Sample(name, self.task, (*self.question(prompt, row.said, known), turn), None),
                    row.facts,
                )
            else:
                text = drawn(self.documents, seed, name).format_map(row.said)
                yield Sample(name, self.task, None, (text,)), row.facts

    def question(self, prompt, said, known):
        """The messages that an answer follows."""
        system = (
            ({"role": "system", "content": self.system.format(format=known.form)},) if self.system else ()
        )
        return *system, {"role": "user", "content": prompt.format_map(said)}

    def ask(self, known, stretch, split, seed=PARAPHRASE_SEED):
        """The messages that ask for what comes after a history, byte for byte as samples of that split.

        Args:
            stretch: of that split, cut to as many items as samples have.
            seed: that of the samples.
        """
        prompt, _ = drawn(self.chats, seed, sample_name(self.task, split, CHAT, stretch.key))
        return self.question(prompt, self.asks(known, stretch), known)


def check_texts(what, texts, text_keys):
    """Raises InputError where a text is not read that `what`, in words, needs by name."""
    for name in texts:
        if name not in text_keys:
            how = "--text_keys" if name != CATEGORIES else "--text_keys and --categories_key"
            raise InputError(
                f"{what} needs each item's {name}, but the texts that are read are {', '.join(text_keys)}. "
                f"Name the column with {how}, or leave {what} out."
            )


def sample_name(task, split, form, key):
    """The uuid of a sample; the same whatever else there is."""
    return str(uuid.uuid5(NAMESPACE, repr((task, split, form, *key))))


def drawn(paraphrases, seed, name):
    """One of them, by seed and sample alone: the number and order of samples make no difference."""
    if len(paraphrases) == 1:
        return paraphrases[0]
    return paraphrases[digest(seed, name) % len(paraphrases)]


def digest(seed, name):
    """A number as if drawn, of seed and name alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")
