"""A report on files of samples: counts by source, lengths, what is odd, and what is wrong in which row."""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import zip_longest

import numpy as np
from tqdm import tqdm

from pixelrec_train.data.checks.bars import histogram, side_by_side
from pixelrec_train.data.checks.odd_samples import REPEATED, SHOWN, Found, Group, Tokens, check_group, repeats
from pixelrec_train.data.samples.dataset_file import DatasetFile
from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.data.samples.rows import row_counts
from pixelrec_train.errors import InputError
from pixelrec_train.resources import cores

FEW = 50_000  # rows that one process reads before others would have started
MOST_SOURCES = 30  # rows of the table
USUAL_ROWS = (200, 5000)  # of a file, where about 1,000 are asked for


class Report:
    """Of CheckSamplesConfig; is_wrong is known when all lines are."""

    def __init__(self, config):
        self.config = config
        self.settings = DatasetFile.load(config.dataset_config) if config.dataset_config else None
        sources = self.settings.sources if self.settings else sources_of(list(config.samples), "samples:")
        self.files = [file for source in sources for file in source.files]
        self.model_dir = config.model_dir or (self.settings and self.settings.base_model_dir)
        self.readable, self.is_wrong = [], False

    def lines(self):
        found, groups = self.found()
        self.is_wrong = bool(found.wrong)
        yield from self.settings.remarks() if self.settings else ()
        yield from table(found, len(self.files))
        for part in (self.remarks(found, groups), self.lengths(found), wrong_rows(found.wrong)):
            for number, line in enumerate(part):
                yield from [""] * (number == 0)
                yield line

    def found(self):
        """(Found of all files, [Group])"""
        found, groups, begin = Found(), [], 0
        for file in self.files:
            try:
                counts = row_counts(file)
            except InputError as error:
                found.wrong.add("a file cannot be read", str(error).rstrip("."))
                continue
            self.readable.append(file)
            for number, rows in enumerate(counts):
                groups.append(Group(file, number, rows, begin))
                begin += rows
        for part in self.checked(groups):
            found.merge(part)
        if groups:
            count, places = repeats(np.concatenate(found.hashes), groups)
            if count:
                found.wrong.add(REPEATED, *places, count=count)
        return found, groups

    def checked(self, groups):
        """Found of each group, in their order."""
        total = sum(group.rows for group in groups)
        check = partial(check_group, tokens=self.tokens(total))
        processes = self.config.processes or cores()
        if processes == 1 or total < FEW or len(groups) == 1:
            yield from map(check, self.counted(groups, groups, total))
            return
        with ProcessPoolExecutor(processes) as pool:
            yield from self.counted(pool.map(check, groups, chunksize=1), groups, total)

    @staticmethod
    def counted(them, groups, total):
        """The same with a bar on the terminal."""
        with tqdm(total=total, desc="check", unit=" rows", disable=None, delay=2, leave=False) as bar:
            for one, group in zip(them, groups, strict=True):
                yield one
                bar.update(group.rows)

    def tokens(self, total):
        """Tokens; None without a tokenizer."""
        if self.model_dir is None:
            return None
        said = [getattr(self.settings, key, None) for key in ("only_assistant_loss", "add_think_pattern")]
        every = max(1, -(-total // self.config.tokenised))
        return Tokens(str(self.model_dir), every, said[0] is not False, bool(said[1]))

    def remarks(self, found, groups):
        """What is odd, in rows that train all the same: warn = look at it, note = good data have it too."""
        for line in found.remarks.lines():
            yield f"warn   {line}"
        rows = Counter(dict.fromkeys(self.readable, 0))
        for group in groups:
            rows[group.path] += group.rows
        if empty := [file for file in self.readable if not rows[file]]:
            yield f"warn   files without a row: {len(empty):,}, the first is {empty[0]}"
        usual = np.median(list(rows.values() or [0]))
        if not USUAL_ROWS[0] <= usual <= USUAL_ROWS[1]:
            yield f"note   rows of a file: {usual:,.0f}; OpenOneRec asks for about 1,000, here it is all one"
        if several := len({group.path for group in groups if group.number}):
            yield f"note   files with several row groups: {several:,}; OpenOneRec reads the first alone"

    def lengths(self, found):
        of = "tokens" if self.model_dir else "characters"
        blocks = [
            histogram(f"{of} per {name}", np.concatenate(lengths))
            for name, lengths in (("chat", found.chat_lengths), ("document", found.document_lengths))
            if sum(map(len, lengths))
        ]
        yield from side_by_side(*blocks) if blocks else ()
        measured, total = found.measured.total(), found.chats.total() + found.documents.total()
        if measured < total and self.model_dir:
            yield f"Tokens are those of {measured:,} samples, taken evenly from all files (--tokenised)."
        if not self.model_dir:
            yield "--model_dir (any directory with a tokenizer) counts tokens instead of characters."
        elif limit := self.limit():
            every = np.concatenate([*found.chat_lengths, *found.document_lengths, np.zeros(0, np.int32)])
            share = (every > limit).mean() if len(every) else 0
            yield f"too long: {share:.2%} of the samples have more than {limit:,} tokens, and are left out"

    def limit(self):
        """Tokens that a sample may have, by the dataset JSON."""
        said = self.settings and [self.settings.max_length, self.settings.max_sample_length]
        return min([n for n in said or () if n], default=None)


def table(found, files):
    """Lines: counts by source, the largest first."""
    samples = found.chats + found.documents
    total, chats, documents = samples.total(), found.chats.total(), found.documents.total()
    where = f"{files:,} file{'s' * (files != 1)}"
    yield f"samples: {total:,} in {where}: {chats:,} chats, {documents:,} documents"
    if not total:
        return
    heads = ["source", "samples", "share", "chats", "documents", "characters", "tokens", "labels"]
    rows = [heads[: None if found.measured else -2]]
    for name, count in samples.most_common(MOST_SOURCES):
        row = [
            name,
            f"{count:,}",
            f"{count / total:.1%}",
            f"{found.chats[name]:,}",
            f"{found.documents[name]:,}",
        ]
        row += [f"{found.characters[name] / count:,.1f}"]
        if measured := found.measured[name]:
            row += [f"{found.tokens[name] / measured:,.1f}", f"{found.labels[name] / found.tokens[name]:.1%}"]
        rows.append(row)
    yield ""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    for name, *cells in rows:
        yield "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])])
    if len(samples) > MOST_SOURCES:
        yield f"and {len(samples) - MOST_SOURCES:,} sources more"
    tokens = "; labels are the share of tokens to be learned" if found.measured else ""
    yield f"characters and tokens are the mean of a sample{tokens}"


def wrong_rows(wrong):
    """Each kind with its first places; last, where it is seen."""
    for what, (count, places) in wrong.items():
        yield f"wrong  {what}: {count:,}"
        yield from (f"       {place}" for place in places)
        if count > SHOWN:
            yield f"       and {count - len(places):,} more"
    if not wrong:
        yield "ok     nothing wrong"
