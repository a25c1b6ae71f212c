"""Itemic tokens: how a code is spelled as a word of an LLM's vocabulary. Inside, codes are integers."""

from typing import NamedTuple

LETTERS = "abcdefghijklmnopqrstuvwxyz"


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


CODECS = {
    codec.name: codec
    for codec in (
        Codec("onerec", "<s_{letter}_{code}>", "<|sid_begin|>", "<|sid_end|>"),  # OpenOneRec, OneRec-Think
        Codec("minionerec", "<{letter}_{code}>"),  # MiniOneRec, LC-Rec
        Codec("semantic_ids_llm", "<|sid_{number}|>", "<|sid_start|>", "<|sid_end|>"),  # eugeneyan
        Codec("cb", "<cb_{level}_{code}>", "<|item_begin|>", "<|item_end|>"),  # puyuanOT's OneRec-Think
    )
}
