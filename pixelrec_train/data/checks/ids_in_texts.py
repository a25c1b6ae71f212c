"""Ids of items in texts: found in any spelling, and held against a catalogue."""

import bisect
import functools
import itertools
import re

import numpy as np

from pixelrec_train.semantic_id.codecs import CODECS, LETTERS
from pixelrec_train.semantic_id.codes import ABSENT

NO_ITEM = "an id that no item of --semantic_ids has"
OUT_OF_ORDER = "an id whose levels are not in their order"
SHORT = "an id that lacks a level"
BEYOND = "an id with a code beyond its codebook"
EMPTY = "an id without any code"
BARE = "an id without the words that begin and end one"


def pattern_of(*codecs):
    """Finds ids, whole or not: begin and end, tokens from one of level 0 to the next, or any other tokens."""
    return re.compile("|".join(map(expression, codecs)))


def expression(codec):
    begin, end = re.escape(codec.begin), re.escape(codec.end)
    token = token_expression(codec, None)
    tokens = f"(?:{token})+"
    if not codec.is_numbered:
        tokens = f"(?:{token_expression(codec, 0)}(?:{token_expression(codec, 1)})*|{tokens})"
    if not begin:
        return tokens
    return f"(?:{begin})?{tokens}(?:{end})?|{begin}{end}"


def token_expression(codec, level):
    """Of a token of level 0, of a later level (1), or of any (None)."""
    letter = {None: "[a-z]", 0: "a", 1: "[b-z]"}[level]
    number = {None: "[0-9]+", 0: "0", 1: "[1-9][0-9]*"}[level]
    marks = re.escape(codec.pattern.format(letter="@", level="%", code="#", number="#"))
    return marks.replace("@", letter).replace("%", number).replace(re.escape("#"), "[0-9]+")


@functools.cache
def any_id():
    """Finds ids in all spellings."""
    return pattern_of(*CODECS.values())


class Catalogue:
    """The ids that items have, in one spelling; equal ids have one number."""

    def __init__(self, semantic_ids, codec):
        """semantic_ids: SemanticIds; codec: the name of the spelling."""
        self.codec, self.sizes = CODECS[codec], semantic_ids.codebook_sizes
        self.pattern = pattern_of(self.codec)
        codes, number = np.unique(semantic_ids.codes, axis=0, return_inverse=True)
        self.items = len(semantic_ids.item_ids)
        self.number_of_item = dict(zip(semantic_ids.item_ids, number.reshape(-1).tolist(), strict=True))
        self.levels = (codes != ABSENT).sum(1)  # of each id
        self.shortest = int(self.levels.min(initial=len(self.sizes)))
        spelled = [self.codec.text(row, self.sizes) for row in codes.tolist()]
        self.numbers = {text: n for n, text in enumerate(spelled)}
        self.beginnings = {tuple(row[:n]) for row in codes.tolist() for n in range(1, len(row))}
        self.token = re.compile(token_expression(self.codec, None))
        self.edges = list(itertools.accumulate(self.sizes))

    def read(self, text):
        """(ids as they are spelled in a text, in order; their numbers, None where odd() has to tell)"""
        spelled = self.pattern.findall(text) if "<" in text else []
        return spelled, [self.numbers.get(one) for one in spelled]

    def tokens(self, numbers):
        """[tokens of each level] of ids by their numbers."""
        levels = len(self.sizes)
        if self.shortest == levels:
            return [len(numbers)] * levels
        return [int((self.levels[numbers] > level).sum()) for level in range(levels)]

    @functools.lru_cache(maxsize=1 << 16)  # noqa: B019 (it lives as long as the check)
    def odd(self, found):
        """(number or None, levels, what is odd) of a text that is no id of the catalogue as it is spelled."""
        levels, codes = self.split(found)
        if not levels:
            return None, levels, EMPTY
        in_place = list(range(len(levels)))
        if any(
            level >= len(self.sizes) or code >= self.sizes[level]
            for level, code in zip(levels, codes, strict=True)
        ):
            return None, levels, BEYOND
        if levels != in_place:
            return None, levels, SHORT if sorted(set(levels)) == levels else OUT_OF_ORDER
        number = self.numbers.get(self.codec.text(codes, self.sizes))
        if number is not None and self.codec.text(codes, self.sizes) != found:
            return number, levels, BARE
        return None, levels, SHORT if len(levels) < self.shortest else NO_ITEM

    def split(self, found):
        """(level of each token, its code)"""
        levels, codes = [], []
        for word in self.token.findall(found):
            numbers = [int(n) for n in re.findall("[0-9]+", word)]
            if self.codec.is_numbered:
                level = bisect.bisect_right(self.edges, numbers[-1])
                code = numbers[-1] - (self.edges[level - 1] if level else 0)
            else:
                level = numbers[0] if len(numbers) > 1 else LETTERS.index(re.findall("[a-z]", word)[-1])
                code = numbers[-1]
            levels.append(level)
            codes.append(code)
        return levels, codes

    def is_beginning(self, found):
        """Whether it is the first levels of an id that an item has."""
        return tuple(self.split(found)[1]) in self.beginnings
