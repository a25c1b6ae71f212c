"""Ids inside of texts from one spelling to another: any text file, be it prose, JSON, JSON lines or CSV.

No spelling has a character that these formats write in another way, so a line is converted as it stands.
"""

import os
import re
from collections import Counter
from pathlib import Path

from pixelrec_train.data.convert.reading import lines_of
from pixelrec_train.errors import InputError
from pixelrec_train.semantic_id.codecs import CODECS

REC = "<|rec|>"  # asks for an item where ids are spelled as semantic_ids_llm; other spellings have none
PREFIXES, SHORTER = "ids without an end", "ids of fewer levels than there are codebooks"


class Respelling:
    """From one of CODECS to another.

    Words around an item are those of the other spelling. Where the first has none, an item ends before the
    next code of the first level, and gets them; where the other has none, they go.
    """

    def __init__(self, codec_from, codec_to, codebook_sizes):
        self.source, self.target, self.sizes = CODECS[codec_from], CODECS[codec_to], tuple(codebook_sizes)
        self.wraps = not self.source.begin
        own, other = self.source.tokens(self.sizes), self.target.tokens(self.sizes)
        self.words = {
            word: (level, new)
            for level, words in enumerate(zip(own, other, strict=True))
            for word, new in zip(*words, strict=True)
        }  # token -> its level, the token of the other spelling
        around = [re.escape(word) for word in (self.source.begin, self.source.end) if word]
        self.run = re.compile(f"(?:{'|'.join([*around, looks_like(self.source)])})+")
        self.counts = Counter()

    def line(self, text, where):
        """The text with its ids in the other spelling.

        Raises:
            InputError: something can only be meant as an id's token, but is none of these codebooks, or its
                level is not the next.
        """
        if self.source.name == "semantic_ids_llm":
            self.counts[REC] += text.count(REC)
        before = self.found
        text = self.run.sub(lambda found: "".join(self.respelled(found[0], where)), text)
        self.counts["lines"] += self.found > before
        return text

    @property
    def found(self):
        """Ids so far, whole or not."""
        return self.counts["ids"] + self.counts[PREFIXES]

    def respelled(self, run, where):
        """Yields the other spelling of tokens that stand without anything between them: items, or a part."""
        level, opened = 0, False  # of the next code; whether a word of beginning stood before
        for word in re.findall("<[^<>]*>", run):
            if word in (self.source.begin, self.source.end):
                if opened and (word == self.source.begin or not level):
                    raise self.no_id(run, f"{self.source.begin} is not followed by codes and an end", where)
                yield from self.closed(level)
                level, opened = 0, word == self.source.begin
                yield self.target.begin if opened else self.target.end
                continue
            if word not in self.words:
                sizes = ", ".join(map(str, self.sizes))
                raise self.no_id(run, f"{word} is none of --codebook_sizes {sizes}", where)
            place, new = self.words[word]
            if level and not place and not opened:  # items one behind the other
                yield from self.closed(level)
                yield self.target.end * self.wraps
                level = 0
            if place != level:
                raise self.no_id(run, f"{word} is of level {place + 1}, not {level + 1}", where)
            yield self.target.begin * (self.wraps and not level) + new
            level += 1
        if opened:
            self.counts[PREFIXES] += 1
        elif level:
            yield from self.closed(level)
            yield self.target.end * self.wraps

    def closed(self, level):
        """Counts an item of so many codes, if there are any; yields nothing."""
        self.counts["ids"] += level > 0
        self.counts[SHORTER] += 0 < level < len(self.sizes)
        return ()

    def no_id(self, run, why, where):
        return InputError(
            f"{where}: {run[:80]} is no id in the spelling {self.source.name}: {why}. One reads "
            f"{self.source.text([0] * len(self.sizes), self.sizes)}; index files are read by "
            f"build_semantic_ids --import_index."
        )


def looks_like(codec):
    """Regular expression of a codec's tokens, and of what can only be meant as one: with any number."""
    marks = re.escape(codec.pattern.format(letter="@", level="%", code="#", number="#"))
    marks = marks.replace("@", "[a-z]").replace("%", "[0-9]+")
    return marks.replace(re.escape("#"), "-?[0-9][^<>|]*")


def convert(path, output, respelling):
    """Write a text file with its ids in the other spelling, whole or not at all; returns what to say of it.

    Raises:
        InputError: the file is no text, holds no id, or something that is none.
    """
    output, counts, others = Path(output), respelling.counts, Counter()
    partial = output.with_name(f"{output.name}.partial")
    made = [folder for folder in output.parents if not folder.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            for number, line in lines_of(path):
                file.write(respelling.line(line, f"{path} line {number:,}"))
                if not respelling.found:
                    others.update(
                        name for name, codec in CODECS.items() if re.search(looks_like(codec), line)
                    )
        if not respelling.found:
            but = f"; it holds some of {others.most_common(1)[0][0]}" if others else ""
            raise InputError(
                f"{path} holds no id in the spelling {respelling.source.name}{but}. See --codec_from."
            )
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
        for folder in () if output.exists() else made:
            folder.rmdir()
    said = [
        f"ids: {counts['ids']:,} in {counts['lines']:,} lines, {respelling.source.name} -> "
        f"{respelling.target.name}, codebooks of {', '.join(map(str, respelling.sizes))}"
    ]
    said += [f"{what}: {counts[what]:,}" for what in (PREFIXES, SHORTER) if counts[what]]
    if counts[REC]:
        said.append(
            f"{REC}, which {respelling.target.name} does not have, left as it stands: {counts[REC]:,}"
        )
    return said
