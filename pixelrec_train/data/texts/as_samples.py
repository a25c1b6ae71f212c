"""Files of texts become Parquet files of samples in the cache directory, once, for all that reads such."""

import time
from pathlib import Path
from typing import NamedTuple

from pixelrec_train import distributed
from pixelrec_train.data.cache import beside, fingerprint, loaded
from pixelrec_train.data.samples.cells import Odd, Remarks
from pixelrec_train.data.samples.files import Source
from pixelrec_train.data.samples.writing import write_samples
from pixelrec_train.data.texts import forms
from pixelrec_train.data.texts.preferences import pair, text_pair
from pixelrec_train.data.texts.reading import rows_of
from pixelrec_train.errors import InputError
from pixelrec_train.run import watchdog
from pixelrec_train.run.log import say

VERSION = "texts 1"
ROWS_PER_FILE = 65_536
SHOWN = 3  # bad rows that the sentence names
DOCUMENTS, CHATS, PAIRS, TEXT_PAIRS = "documents", "chats", "pairs of answers", "pairs of texts"
BEAT = 5.0  # seconds


class Form(NamedTuple):
    """How rows are read."""

    what: str  # DOCUMENTS, CHATS, PAIRS or TEXT_PAIRS
    text_fields: tuple[str, ...] = forms.TEXT_FIELDS
    document_by: str = "line"
    skip_bad: bool = False  # leave out rows that are no sample, and count them

    def samples(self, place, row, remarks):
        """The Samples of a row; of a pair the better one first."""
        if self.what == PAIRS:
            return pair(place, row, remarks)
        if self.what == TEXT_PAIRS:
            return text_pair(place, row)
        if self.what == CHATS:
            return (forms.chat(place, row, remarks),)
        return (forms.document(place, row, self.text_fields, remarks),)


def as_samples(files, form, cache_dir):
    """(Source, lines for the plan) of files, written first where that has not been done. All ranks call it.

    Raises:
        InputError: rows are no samples; the first SHOWN of them are named. Or a file cannot be read.
    """
    mark = fingerprint(VERSION, form, *[str(file) for file in files], *map(Path, files))
    directory = Path(cache_dir) / f"texts-{mark}"
    with distributed.first_on_each_machine():
        if not (directory / "facts.json").is_file():
            say(f"texts: reading {len(files):,} files")
            with beside(directory) as (folder, facts):
                remarks = Remarks()
                write_samples(folder, samples_of(files, form, remarks), ROWS_PER_FILE)
                if not any(folder.glob("*.parquet")):
                    raise InputError(f"there is no text in {', '.join(map(str, files))[:200]}.")
                facts["remarks"] = list(remarks.lines())
    _, facts = loaded(directory)
    return Source(tuple(sorted(directory.glob("part-*.parquet")))), facts["remarks"]


def samples_of(files, form, remarks):
    """Yields (Sample, {}) of each row."""
    bad, looked = [], time.monotonic()
    for file in files:
        for place, row in rows_of(file, form.document_by):
            if time.monotonic() > looked + BEAT:
                watchdog.at("read texts")
                looked = time.monotonic()
            try:
                yield from ((sample, {}) for sample in form.samples(place, row, remarks))
            except Odd as problem:
                what, *detail = problem.args
                if form.skip_bad:
                    remarks.add(file.name, f"left out, as {what}", str(place))
                else:
                    bad.append(f"{place}: {what}{f' ({detail[0]})' if detail else ''}")
                if len(bad) == SHOWN:
                    break
        if len(bad) == SHOWN:
            break
    if bad:
        raise InputError(
            f"{'; '.join(bad)}. As {form.what} they cannot be read; mend them, or leave such rows out and "
            f"count them with --skip_bad_rows."
        )
