"""Every item's text, tokenised once into memory-mapped arrays."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from pixelrec_train.batch import Items, PackedTexts
from pixelrec_train.config import TokenFlags
from pixelrec_train.data.cache import ArrayFile, cached, fingerprint, let_go
from pixelrec_train.errors import InputError
from pixelrec_train.files import tokenizer_files
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.run.progress import progress
from pixelrec_train.sentence_encoder import SentenceEncoder

UNREAD = "unread"
STRETCH = 1 << 20  # tokens that are looked at together


@dataclass(frozen=True)
class ItemText:
    """tokens[offsets[i]:offsets[i + 1]] are item i's token ids, the [ITEM] placeholder included."""

    tokens: np.ndarray  # [sum of lengths] int32
    offsets: np.ndarray  # [num_items + 1] int64
    without_text: int  # items with no row in the text file
    unknown_rows: int  # rows of the text file whose item nobody took, or that repeat an item
    fingerprint: str
    notes: tuple[str, ...] = ()  # what a person may want to know of how the table was read

    @property
    def lengths(self):
        return np.diff(self.offsets)  # [num_items]

    @property
    def largest_token(self):
        """The largest of all token ids."""
        largest = 0
        for first in range(0, len(self.tokens), STRETCH):
            largest = max(largest, int(self.tokens[first : first + STRETCH].max()))
            self.let_go()
        return largest

    def let_go(self):
        """Nothing that is mapped lies in memory any more; it is read again where it is asked for."""
        let_go(self.tokens)
        let_go(self.offsets)

    @property
    def is_read(self):
        """Whether an item LLM is to read these texts."""
        return self.fingerprint != UNREAD

    def lengths_of(self, numbers):
        """[I] item numbers -> [I] tokens of their texts."""
        return self.offsets[numbers + 1] - self.offsets[numbers]

    @staticmethod
    def unread(num_items):
        """Stands in where no item LLM reads: every text has no token."""
        return ItemText(np.zeros(0, np.int32), np.zeros(num_items + 1, np.int64), 0, 0, UNREAD)

    def beside(self, other):
        """ItemText of these items, and of the other's behind them."""
        return ItemText(
            np.concatenate([self.tokens, other.tokens]),
            np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            self.without_text + other.without_text, self.unknown_rows + other.unknown_rows,
            fingerprint(self.fingerprint, other.fingerprint), (*self.notes, *other.notes),
        )  # fmt: skip

    def items(self, numbers):
        """[I] item numbers -> Items, in that order."""
        return Items(torch.from_numpy(np.asarray(numbers, np.int64)), self.pack(numbers))

    def pack(self, items):
        """[I] item numbers -> PackedTexts of their texts, in that order."""
        start = self.offsets[items]
        lengths = self.offsets[np.asarray(items) + 1] - start
        first = np.cumsum(lengths) - lengths  # where each text begins in the row
        positions = np.arange(lengths.sum()) + np.repeat(start - first, lengths)
        tokens = self.tokens[positions].astype(np.int64)
        return PackedTexts(torch.from_numpy(tokens), torch.from_numpy(lengths.astype(np.int64)))

    def summary(self):
        lengths = self.lengths
        if not len(self.tokens):
            return "not read"
        text = f"{lengths.mean():.0f} tokens per item (longest {lengths.max()}), {len(self.tokens):,} in all"
        if self.without_text:
            text += f"; items without a row in the text file, read as empty: {self.without_text:,}"
        if self.unknown_rows:
            text += f"; rows of the text file that repeat an item or belong to none: {self.unknown_rows:,}"
        return text


class Reader(NamedTuple):
    """Which texts are read, and whose tokenizer reads them."""

    texts: TokenFlags
    item_dir: str  # where the tokenizer lies
    trust: bool = False
    item_prompt: str = ""
    item_emb_token_n: int = 0
    encoder: SentenceEncoder | None = None  # where it says how texts are cut, and their case

    @staticmethod
    def of(hllm, item_dir, trust):
        """Of the item LLM of HllmFlags; None where there is none. trust: towers that may run their code."""
        if hllm.id_only:
            return None
        encoder = hllm.encoder_of(item_dir)
        prompt = encoder.prompt if encoder else hllm.item_prompt
        return Reader(hllm, item_dir, "item" in trust, prompt, hllm.item_emb_token_n, encoder)


def read(catalogue, reader):
    """Tokenise the catalogue's texts with the item LLM's tokenizer (or load the cache).

    Args:
        catalogue: Interactions, or what else has item_ids and their fingerprint.

    Raises:
        InputError: a text column is missing, the tokenizer cannot be loaded, or the prompt leaves no room.
    """
    texts, item_dir, trust, item_prompt, item_emb_token_n, sentences = reader
    mark = fingerprint(
        "item text 2", catalogue.fingerprint, Path(texts.text_data), texts.text_keys, texts.item_column,
        texts.encoding, texts.allow_missing_text, item_prompt, texts.max_text_length, item_emb_token_n,
        *([sentences.max_tokens, sentences.lowercase] if sentences else []), *tokenizer_files(item_dir),
    )  # fmt: skip

    def build():
        from pixelrec_train.data.item_fields import texts_on_disk  # brings pandas and pyarrow with it

        read, facts = texts_on_disk(catalogue.item_ids, texts, item_prompt)
        tokenizer = load_tokenizer(item_dir, trust=trust)
        prompt_tokens = len(tokenizer(item_prompt)["input_ids"])
        if prompt_tokens >= texts.max_text_length:
            raise InputError(
                f"--item_prompt alone is {prompt_tokens} tokens and --max_text_length keeps "
                f"{texts.max_text_length}: every item would read the same. Raise --max_text_length or "
                f"shorten the prompt (--item_prompt '')."
            )
        cut = texts.max_text_length, item_emb_token_n, sentences
        blocks = tokenised(tokenizer, read.blocks(), len(read), *cut)
        return arrays_of(blocks, len(read), texts.cache_dir), facts

    arrays, facts = cached(texts.cache_dir, "item_text", mark, build)
    return ItemText(**arrays, **facts, fingerprint=mark)


def arrays_of(blocks, count, cache_dir):
    """{"tokens": ArrayFile, "offsets": [count + 1]} of ItemText. blocks: of tokenised, of `count` texts."""
    tokens, offsets, done = ArrayFile(cache_dir, np.int32), np.zeros(count + 1, np.int64), 1
    for part, lengths in blocks:
        tokens.write(part)
        offsets[done : done + len(lengths)] = lengths
        done += len(lengths)
    return {"tokens": tokens, "offsets": np.cumsum(offsets, out=offsets)}


def tokenise(tokenizer, texts, max_text_length, item_emb_token_n, sentences=None, block=256):
    """Texts -> tokens and offsets of ItemText; arguments as of tokenised."""
    blocks = tokenised(tokenizer, [texts], len(texts), max_text_length, item_emb_token_n, sentences, block)
    tokens, lengths = [np.zeros(0, np.int32)], [[0]]
    for part, of_each in blocks:
        tokens.append(part)
        lengths.append(of_each)
    return np.concatenate(tokens), np.cumsum(np.concatenate(lengths), dtype=np.int64)


def tokenised(
    tokenizer, lists, count, max_text_length, item_emb_token_n, sentences=None, block=256,
):  # fmt: skip
    """(tokens int32 end to end, length of each) of some texts after the other: of each text its first
    max_text_length ids, then one placeholder 0 for [ITEM].

    With item_emb_token_n = 0 there is no placeholder, and a text without any token becomes one
    end-of-text token, so that its mean exists. With a SentenceEncoder, that says how a text is cut.

    Args:
        lists: lists of texts, `count` in all.
    """
    encode = encoder(tokenizer) if sentences is None else as_sentences(tokenizer, sentences)
    placeholder = [0] if item_emb_token_n else []
    empty = [] if item_emb_token_n else [tokenizer.eos_token_id or tokenizer.pad_token_id or 0]
    with progress("tokenise", count, "texts") as tell:
        for texts in lists:
            for first in range(0, len(texts), block):
                part = encode(texts[first : first + block])
                rows = [(ids[:max_text_length] or empty) + placeholder for ids in part]
                yield np.fromiter(chain.from_iterable(rows), np.int32), list(map(len, rows))
                tell(len(rows))


def encoder(tokenizer):
    """texts -> lists of their ids, as tokenizer(texts) gives them.

    Where nothing but the tokenizers library stands behind it, that is asked directly: it uses all cores (as
    tokenizer(texts) does), and encode_batch_fast leaves out offsets and masks that nobody reads here.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not is_plain(tokenizer) or not hasattr(backend, "encode_batch_fast"):
        return lambda texts: tokenizer(texts, add_special_tokens=True, verbose=False)["input_ids"]
    tokenizer("")  # switches off truncation and padding that tokenizer.json may hold, as every call does
    return lambda texts: [e.ids for e in backend.encode_batch_fast(texts, add_special_tokens=True)]


def as_sentences(tokenizer, sentences):
    """The same as sentence-transformers cuts them: a long text keeps the special tokens at its end."""
    limit = {"max_length": sentences.max_tokens, "truncation": True, "verbose": False}
    case = str.lower if sentences.lowercase else str
    return lambda texts: tokenizer(list(map(case, texts)), **limit)["input_ids"]


def is_plain(tokenizer):
    """Whether nothing of its own stands before the tokenizers library, which may then be asked directly."""
    return getattr(type(tokenizer), "_encode_plus", None) is PreTrainedTokenizerFast._encode_plus
