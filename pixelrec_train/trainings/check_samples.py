"""A report on files of samples: counts by source, lengths, what is odd, and what is wrong in which row."""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tqdm import tqdm

from pixelrec_train.data.checks import sample_tables
from pixelrec_train.data.checks.answers import often_at_the_end
from pixelrec_train.data.checks.bars import histogram, side_by_side
from pixelrec_train.data.checks.found import SHOWN, Found, Group
from pixelrec_train.data.checks.held_out import HeldOutRows
from pixelrec_train.data.checks.ids_in_texts import Catalogue
from pixelrec_train.data.checks.odd_samples import Against, Tokens, check_group
from pixelrec_train.data.checks.same_samples import REPEATED, notes, repeats
from pixelrec_train.data.checks.special_words import check_words
from pixelrec_train.data.samples.dataset_file import DatasetFile
from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.data.samples.rows import row_counts
from pixelrec_train.errors import InputError
from pixelrec_train.files import model_files
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.run.resources import cores
from pixelrec_train.semantic_id.codes import SemanticIds

FEW = 50_000  # rows that one process reads before others would have started
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
        self.catalogue = catalogue_of(config, self.model_dir)
        self.held_out = held_out_rows(config, self.catalogue) if config.interaction_data else None

    def lines(self):
        found, groups = self.found()
        self.is_wrong = bool(found.wrong)
        yield from self.settings.remarks() if self.settings else ()
        yield from sample_tables.counts(found, len(self.files))
        itemic = sample_tables.itemic(found, self.catalogue) if self.catalogue else ()
        for part in (itemic, self.remarks(found, groups), self.lengths(found), wrong_rows(found.wrong)):
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
            for source, what, count, place in notes(
                np.concatenate(found.marks), groups, found.chats | found.documents
            ):
                found.notes.add(source, what, place, count)
        if found.words:
            check_words(found, load_tokenizer(self.model_dir))
        often_at_the_end(found)
        return found, groups

    def checked(self, groups):
        """Found of each group, in their order."""
        total = sum(group.rows for group in groups)
        against = Against(self.tokens(total), self.catalogue, self.held_out)
        processes = self.config.processes or cores()
        if processes == 1 or total < FEW or len(groups) == 1:
            yield from (check_group(group, against) for group in self.counted(groups, groups, total))
            return
        # Each process gets it once, and not with every group: it may be large.
        with ProcessPoolExecutor(processes, initializer=begin, initargs=(against,)) as pool:
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
        samples = found.chats + found.documents
        for (source, what), (count, place) in found.notes.items():
            yield f"note   {source}: {what}: {count:,} ({count / samples[source]:.1%}), the first in {place}"
        if self.held_out:
            yield f"note   {self.held_out.summary}"
            if not self.catalogue:
                yield "note   without --semantic_ids only metadata is held against what is held out"
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


def wrong_rows(wrong):
    """Each kind with its first places; last, where it is seen."""
    for what, (count, places) in wrong.items():
        yield f"wrong  {what}: {count:,}"
        yield from (f"       {place}" for place in places)
        if count > SHOWN:
            yield f"       and {count - len(places):,} more"
    if not wrong:
        yield "ok     nothing wrong"


AGAINST = Against()  # of a process that begin() has begun


def begin(against):
    """Tell a process what all its groups are held against."""
    global AGAINST
    AGAINST = against


def check(group):
    return check_group(group, AGAINST)


def catalogue_of(config, model_dir):
    """Catalogue of --semantic_ids, in the spelling of --codec or the model's vocabulary; None without.

    Raises:
        InputError: the vocabulary is for other ids, or in another spelling.
    """
    if not config.semantic_ids:
        return None
    ids, codec = SemanticIds.load(config.semantic_ids), config.codec
    if model_dir:
        from pixelrec_train.model.vocabulary import META_FILE, check_codes, read  # brings torch with it

        if (path := model_files(model_dir) / META_FILE).is_file():
            vocabulary, _ = read(path, "--model_dir")
            check_codes(vocabulary, f"--model_dir {model_dir}", ids, config.semantic_ids)
            if codec not in (None, vocabulary.codec):
                raise InputError(
                    f"--codec is {codec}, but the vocabulary of {model_dir} is {vocabulary.codec}. Leave out "
                    f"--codec."
                )
            codec = vocabulary.codec
    return Catalogue(ids, codec or "onerec")


def held_out_rows(config, catalogue):
    """HeldOutRows of the tables. Raises InputError where an item has no semantic id."""
    from pixelrec_train.data.inputs import read_interactions, split_of
    from pixelrec_train.data.views.parts import WHOLE, user_names

    read = read_interactions(config)
    absent = [i for i in read.item_ids if i not in catalogue.number_of_item] if catalogue else []
    if absent:
        raise InputError(
            f"{len(absent):,} of the {read.num_items:,} items of --interaction_data have no id in "
            f"--semantic_ids {config.semantic_ids}, {absent[0]!r} for one. Name the ids of this catalogue."
        )
    split = split_of(read, config, WHOLE)
    return HeldOutRows.of(split, user_names(read, config), read.item_ids, catalogue)
