"""Itemic tokens in a vocabulary: which token id is which code. Every id range comes from itemic_meta.json.

The new ids follow the tokenizer's old ones: the codes of level 0, of level 1, …, then begin and end if the
spelling has them, then what else was asked for. Behind them the table of embeddings is filled up with rows
that are no token.
"""

import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import write_json
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.model_directory import check_directory
from pixelrec_train.semantic_id.codecs import CODECS, LETTERS
from pixelrec_train.semantic_id.codes import ABSENT

META_FILE = "itemic_meta.json"
VERSION = 1


@dataclass(frozen=True)
class ItemicVocabulary:
    """The ids of a model directory that scripts/expand_vocabulary.py made."""

    codec: str
    codebook_sizes: tuple[int, ...]  # [L] codes of each level
    first_new_id: int  # of code 0 of level 0; ids below are the base model's
    rows: int  # of the embedding table, those that are no token included
    init: str  # how the new rows were drawn, and with which seed
    seed: int
    base_model: str  # the directory they were added to
    base_sha256: str  # of its config.json and weights
    others: tuple[str, ...] = ()  # further new words, such as "<|rec|>"

    @property
    def levels(self):
        return len(self.codebook_sizes)

    @property
    def level_ranges(self):
        """[(first id, last id)] of each level, both inclusive."""
        edges = list(itertools.accumulate(self.codebook_sizes, initial=self.first_new_id))
        return [(first, stop - 1) for first, stop in itertools.pairwise(edges)]

    @property
    def begin_id(self):
        """What stands before an item's first token, or None."""
        return self.level_ranges[-1][1] + 1 if CODECS[self.codec].begin else None

    @property
    def end_id(self):
        if not CODECS[self.codec].end:
            return None
        return self.level_ranges[-1][1] + 1 + bool(CODECS[self.codec].begin)

    @property
    def tokenizer_length(self):
        """Ids from here on are rows without a token: they are never predicted."""
        return self.first_new_id + len(self.new_tokens())

    def new_tokens(self):
        """The new words, in the order of their ids."""
        codec = CODECS[self.codec]
        words = [word for level in codec.tokens(self.codebook_sizes) for word in level]
        return words + [word for word in (codec.begin, codec.end) if word] + list(self.others)

    def token_ids(self, codes):
        """[N, L] codes -> [N, L] ids, of the same library; ABSENT stays ABSENT."""
        first = like([first for first, _ in self.level_ranges], codes)
        return where(codes == ABSENT, codes, codes + first)

    def codes(self, token_ids):
        """[N, L] ids, column l of level l -> [N, L] codes: the way back.

        Raises:
            ValueError: an id is of another level or of none.
        """
        first = like([first for first, _ in self.level_ranges], token_ids)
        codes, absent = token_ids - first, token_ids == ABSENT
        if (~absent & ((codes < 0) | (codes >= like(self.codebook_sizes, token_ids)))).any():
            raise ValueError(f"{token_ids.tolist()} are not ids of the levels 0 to {self.levels - 1}")
        return where(absent, token_ids, codes)

    def level_of(self, token_ids):
        """The level of each id, in any shape; -1 where it is the id of no code."""
        ids = torch.as_tensor(token_ids)
        level = torch.bucketize(ids, torch.tensor(self.level_edges, device=ids.device), right=True) - 1
        level = level.masked_fill(level == self.levels, -1)
        return level if isinstance(token_ids, torch.Tensor) else level.numpy()

    @property
    def level_edges(self):
        """[L + 1] first id of each level, and the first id after the last."""
        return [*(first for first, _ in self.level_ranges), self.level_ranges[-1][1] + 1]

    def level_rows(self, device):
        """L of [V_l] ids of the codes 0, 1, … of each level, as decoding wants them."""
        return [torch.arange(first, last + 1, device=device) for first, last in self.level_ranges]

    def is_itemic(self, token_ids):
        """Whether an id is a code's, begin, end or another new word, in any shape."""
        return (token_ids >= self.first_new_id) & (token_ids < self.tokenizer_length)

    def as_dict(self):
        """What itemic_meta.json holds: the fields, and what follows from them, for other readers."""
        names = ("level_ranges", "begin_id", "end_id", "tokenizer_length")
        return {"version": VERSION} | dataclasses.asdict(self) | {name: getattr(self, name) for name in names}

    def save(self, directory):
        write_json(Path(directory) / META_FILE, self.as_dict())

    @staticmethod
    def load(directory, flag_name="--model_dir", trust=False):
        """Of an expanded directory, held against its config.json and its tokenizer.

        Raises:
            InputError: there is no such file, or ranges in it, in config.json or in the tokenizer contradict.
        """
        path = check_directory(directory, flag_name, trust, merges=True) / META_FILE
        vocabulary, found = read(path, flag_name)
        for name, ours in json.loads(json.dumps(vocabulary.as_dict())).items():
            if found.get(name, ours) != ours:
                raise contradiction(path, f"{name} is {found[name]}, but by the other entries it is {ours}")
        rows = json.loads((path.parent / "config.json").read_text(encoding="utf-8")).get("vocab_size")
        if rows != vocabulary.rows:
            raise contradiction(path, f"rows is {vocabulary.rows}, but vocab_size in config.json is {rows}")
        vocabulary.check_tokenizer(load_tokenizer(directory, flag_name, trust), path)
        return vocabulary

    def check_tokenizer(self, tokenizer, path):
        """Raises InputError where a word has another id there than here."""
        words = self.new_tokens()
        there = tokenizer.convert_tokens_to_ids(words)
        for number, (word, found) in enumerate(zip(words, there, strict=True), self.first_new_id):
            if found != number:
                raise contradiction(path, f"{word} is {number}, but the tokenizer makes it {found}")
        if len(tokenizer) != self.tokenizer_length:
            raise contradiction(
                path,
                f"the vocabulary ends at {self.tokenizer_length}, but the tokenizer's at {len(tokenizer)}",
            )


def read(path, flag_name):
    """(ItemicVocabulary, the JSON it came from)"""
    if not path.is_file():
        raise no_itemic_tokens(path.parent, flag_name)
    names = [field.name for field in dataclasses.fields(ItemicVocabulary)]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION or found["codec"] not in CODECS:
            raise ValueError(f"version {found['version']}, codec {found['codec']}")
        values = {name: found[name] for name in names}
        sizes, first, rows = tuple(values["codebook_sizes"]), values["first_new_id"], values["rows"]
        if any(type(number) is not int for number in (*sizes, first, rows)):
            raise ValueError("codebook_sizes, first_new_id and rows are whole numbers")
        # Before any word is spelled: of a code too many there would be no end.
        if not 1 <= len(sizes) <= len(LETTERS) or min(*sizes, first) < 1 or first + sum(sizes) > rows:
            raise ValueError("ranges that are none")
        return ItemicVocabulary(**values | {"codebook_sizes": sizes}), found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not as it was written ({first_line(error)}) Expand the vocabulary anew."
        ) from None


def no_itemic_tokens(directory, flag_name):
    return InputError(
        f"{flag_name} {directory} has no {META_FILE}: its vocabulary has no itemic tokens yet. Make a "
        f"directory that has: scripts/expand_vocabulary.py."
    )


def contradiction(path, what):
    return InputError(
        f"{path} does not go with the files beside it: {what}. Expand the vocabulary anew, and change no id "
        f"by hand."
    )


def like(numbers, array):
    """The numbers in the library, and on the device, of an array."""
    if isinstance(array, torch.Tensor):
        return torch.tensor(numbers, device=array.device)
    return np.array(numbers)


def where(condition, yes, no):
    return (torch if isinstance(condition, torch.Tensor) else np).where(condition, yes, no)


def check_codes(vocabulary, model_dir, found, semantic_ids):
    """Raises InputError where SemanticIds, of that file, have other codes than a vocabulary has tokens."""
    if found.codebook_sizes != vocabulary.codebook_sizes:
        raise InputError(
            f"--semantic_ids {semantic_ids} has codebooks of {numbers(found.codebook_sizes)}, but the "
            f"vocabulary of {model_dir} has tokens for {numbers(vocabulary.codebook_sizes)}. Expand a "
            f"vocabulary for these ids: scripts/expand_vocabulary.py --semantic_ids."
        )


def numbers(sizes):
    return ", ".join(map(str, sizes))
