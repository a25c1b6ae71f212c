"""Itemic tokens: how a code is spelled as a word of an LLM's vocabulary. Inside, codes are integers."""

import re
from typing import NamedTuple

from pixelrec_train.errors import InputError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKS = "XYZWVUTSRQPONMLKJIHGFEDCBA"  # stand for codes where an id's form is shown


class Codec(NamedTuple):
    """One spelling. An item's text is begin, a token per level, end; begin and end may be empty."""

    name: str
    pattern: str  # of a token: {letter} and {level} of the level, {code} in it, {number} over all levels
    begin: str = ""
    end: str = ""

    def tokens(self, codebook_sizes):
        """[[token of code 0, 1, …] of each level]"""
        first = [sum(codebook_sizes[:level]) for level in range(len(codebook_sizes))]
        return [
            [
                self.pattern.format(letter=LETTERS[level], level=level, code=code, number=first[level] + code)
                for code in range(size)
            ]
            for level, size in enumerate(codebook_sizes)
        ]

    def words(self, codes, codebook_sizes):
        """The tokens of one item's codes; a shorter id has fewer (codes below 0 are left out)."""
        first = [sum(codebook_sizes[:level]) for level in range(len(codebook_sizes))]
        return [
            self.pattern.format(letter=LETTERS[level], level=level, code=code, number=first[level] + code)
            for level, code in enumerate(map(int, codes))
            if code >= 0
        ]

    def text(self, codes, codebook_sizes):
        """One item as an LLM reads it: (1, 2, 3) -> "<|sid_begin|><s_a_1><s_b_2><s_c_3><|sid_end|>"."""
        return self.begin + "".join(self.words(codes, codebook_sizes)) + self.end

    def form(self, levels):
        """What an id of so many levels looks like: "<|sid_begin|><s_a_X><s_b_Y><s_c_Z><|sid_end|>"."""
        tokens = (
            self.pattern.format(letter=letter, level=level, code=mark, number=mark)
            for level, (letter, mark) in enumerate(zip(LETTERS[:levels], MARKS, strict=False))
        )
        return self.begin + "".join(tokens) + self.end

    def parse(self, text, codebook_sizes):
        """The codes of what text() gives, begin and end being optional; a shorter id gives fewer.

        Raises:
            InputError: it is no item, or not one of these codebooks.
        """
        inner = text.strip().removeprefix(self.begin).removesuffix(self.end)
        words = re.findall(r"<[^<>]*>", inner)
        codes = self.read(words)
        first = [sum(codebook_sizes[:level]) for level in range(len(codebook_sizes))]
        if codes is not None and self.is_numbered and len(codes) <= len(first):
            codes = [code - start for code, start in zip(codes, first, strict=False)]
        sound = codes and len(codes) <= len(first) and "".join(words) == inner
        if not sound or any(not 0 <= c < size for c, size in zip(codes, codebook_sizes, strict=False)):
            raise InputError(
                f"{text!r} is no item in the spelling {self.name} with codebooks of "
                f"{', '.join(map(str, codebook_sizes))}. One reads "
                f"{self.text([0] * len(first), codebook_sizes)}."
            )
        return tuple(codes)

    def read(self, words):
        """[code of each level] of one item's tokens, or None where they are no such tokens.

        Of a spelling that numbers all levels through, what comes back is that number.
        """
        codes = []
        for level, word in enumerate(words):
            found = re.fullmatch(self.expression(level), word)
            if found is None:
                return None
            codes.append(int(found[1]))
        return codes

    def expression(self, level):
        """Regular expression of a token of this level; its group is the code, or the number."""
        digits = "(0|[1-9][0-9]{0,8})"  # no leading zeros: every code has one spelling
        marks = self.pattern.format(letter=LETTERS[level % len(LETTERS)], level=level, code="#", number="#")
        return re.escape(marks).replace(re.escape("#"), digits)

    @property
    def is_numbered(self):
        """Whether tokens carry a number over all levels in place of level and code."""
        return "{number}" in self.pattern


CODECS = {
    codec.name: codec
    for codec in (
        Codec("onerec", "<s_{letter}_{code}>", "<|sid_begin|>", "<|sid_end|>"),  # OpenOneRec, OneRec-Think
        Codec("minionerec", "<{letter}_{code}>"),  # MiniOneRec, LC-Rec
        Codec("semantic_ids_llm", "<|sid_{number}|>", "<|sid_start|>", "<|sid_end|>"),  # eugeneyan
        Codec("cb", "<cb_{level}_{code}>", "<|item_begin|>", "<|item_end|>"),  # puyuanOT's OneRec-Think
    )
}
