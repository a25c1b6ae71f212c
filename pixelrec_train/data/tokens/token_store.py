"""Samples, tokenised once: a memory-mapped store in the cache directory that all ranks and workers share.

<cache_dir>/samples-<fingerprint>/000000/ …     shards (shards.py), made by whoever is there (sharing.py)
                                  index/        of all of them, written once at the end
"""

import shutil
import time
from pathlib import Path

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.data.cache import beside, fingerprint, loaded
from pixelrec_train.data.samples.cells import Remarks
from pixelrec_train.data.samples.known_files import known_files
from pixelrec_train.data.tokens.chat import PLAIN, Renderer
from pixelrec_train.data.tokens.shards import FACTS, LABEL, TOKENS, plan, rows_of
from pixelrec_train.data.tokens.sharing import LOOK, PHASE, Work, claimed, do_together
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import tokenizer_files
from pixelrec_train.run import watchdog

VERSION = "samples 1"  # another one where tokens or labels come out otherwise than before
MOST_OPEN = 512  # shards whose map a process keeps; each holds a file open
COLUMNS = {"starts": np.int64, "lengths": np.int32, "num_labels": np.int32, "source": np.int32}


class TokenStore:
    """Sample i, of all rows of all files in their order, is store.tokens(i).

    lengths [N] int32: its tokens, the pad token at the end among them.
    num_labels [N] int32: how many of them are labels.
    source [N] int32: its source, a number into the list `sources`.
    entry_bounds: [(first, stop)] samples of each Source that was asked for.
    remarks: Remarks: what was left out of samples, by source.
    """

    def __init__(self, directory, entry_bounds):
        self.directory = Path(directory)
        self.fingerprint = self.directory.name.rpartition("-")[2]
        arrays, facts = loaded(self.directory / "index")
        self.lengths, self.num_labels, self.source = (arrays[n] for n in ("lengths", "num_labels", "source"))
        self.starts, self.sources, self.entry_bounds = arrays["starts"], facts["sources"], entry_bounds
        self.remarks = Remarks({(source, what): told for source, what, *told in facts["remarks"]})
        self.first_of_shard = np.cumsum([0, *facts["shard_rows"]])
        self.maps = {}
        for number, tokens in enumerate(facts["shard_tokens"]):
            refuse_other_size(self.directory / f"{number:06d}", tokens)

    @property
    def num_samples(self):
        return len(self.lengths)

    def tokens(self, i):
        """(ids [T] int32, is_label [T] bool) of sample i; both its own, not the store's."""
        shard = int(np.searchsorted(self.first_of_shard, i, "right")) - 1
        start = int(self.starts[i])
        words = self.words(shard)[start : start + int(self.lengths[i])]
        return (words & ~LABEL).astype(np.int32), words >= LABEL

    def words(self, shard):
        """All tokens of a shard, as they lie in its file."""
        if shard not in self.maps:
            if len(self.maps) >= MOST_OPEN:
                del self.maps[next(iter(self.maps))]  # the one opened first
            self.maps[shard] = np.memmap(self.directory / f"{shard:06d}" / TOKENS, np.uint32, "r")
        return self.maps[shard]

    @staticmethod
    def open_or_build(
        sources, tokenizer, tokenizer_dir, cache_dir, only_assistant_loss=True, add_think_pattern=False,
        ends=PLAIN, rows_per_shard=None,
    ):  # fmt: skip
        """The store of these samples, tokenised first where it is not there; all ranks call it alike.

        A build that was killed goes on where it was. Changed files, another tokenizer or template and other
        settings are another store.

        Args:
            sources: [Source] (data/samples/files.py).
            tokenizer_dir: where the tokenizer was loaded from.
            only_assistant_loss, add_think_pattern, ends: of Renderer.
            rows_per_shard: None = by the number of rows.

        Raises:
            InputError: on all ranks: a row is no sample, a file is damaged, nothing can be written.
        """
        renderer = Renderer(tokenizer, only_assistant_loss, add_think_pattern, ends)
        paths = [path for source in sources for path in source.files]
        files = known_files(paths, cache_dir)
        mark = fingerprint(
            VERSION, [file.digest for file in files], *tokenizer_files(tokenizer_dir),
            tokenizer.chat_template, only_assistant_loss, add_think_pattern, rows_per_shard,
            *([ends] if ends != PLAIN else []),
        )  # fmt: skip
        directory = Path(cache_dir) / f"samples-{mark}"
        if not all(distributed.gather_objects(is_complete(directory))):
            shards = plan([file.rows for file in files], rows_per_shard)
            work = Work(directory, shards, paths, renderer, distributed.from_first_rank(f"{time.time_ns()}"))
            try:
                distributed.on_all_ranks(lambda: build(work))
            finally:  # not before all have heard of it
                work.failure.unlink(missing_ok=True)
        bounds, first = [], 0
        counts = iter([sum(file.rows) for file in files])
        for source in sources:
            stop = first + sum(next(counts) for _ in source.files)
            bounds.append((first, stop))
            first = stop
        return TokenStore(directory, bounds)


def is_complete(directory):
    return (directory / "index" / FACTS).is_file()


def build(work):
    """Make what is missing, the index last."""
    if not work.shards:
        names = ", ".join(map(str, work.files))[:200]
        raise InputError(f"there is no row in {names}. Name files with samples.")
    try:
        work.directory.mkdir(parents=True, exist_ok=True)
        do_together(work)
        with work.locks() as locks:
            while not is_complete(work.directory):
                watchdog.at(PHASE)
                if not claimed(locks, len(work.shards)):
                    time.sleep(LOOK)
                elif not is_complete(work.directory):
                    write_index(work)
    except OSError as error:
        raise InputError(
            f"{work.directory} cannot be written: {first_line(error)} See --cache_dir."
        ) from None


def write_index(work):
    """Of all shards, one after the other."""
    for leftover in work.directory.glob("*.partial"):  # of processes that were killed
        shutil.rmtree(leftover, ignore_errors=True)
    sources, remarks, rows, tokens = {}, Remarks(), [], []
    with beside(work.directory / "index") as (folder, facts):
        shape = (sum(map(rows_of, work.shards)),)
        columns = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
            for name, dtype in COLUMNS.items()
        }
        for number in range(len(work.shards)):
            arrays, told = loaded(work.path(number))
            lengths, num_labels, source = arrays["rows"].T
            ends = np.cumsum(lengths, dtype=np.int64)
            refuse_other_size(work.path(number), int(ends[-1]))
            part = slice(sum(rows), sum(rows) + len(lengths))
            columns["starts"][part] = ends - lengths
            columns["lengths"][part], columns["num_labels"][part] = lengths, num_labels
            numbers = np.array([sources.setdefault(name, len(sources)) for name in told["sources"]])
            columns["source"][part] = numbers[source]
            for name, what, count, place in told["remarks"]:
                remarks.add(name, what, place, count)
            rows.append(len(lengths))
            tokens.append(int(ends[-1]))
        facts |= {"sources": list(sources), "shard_rows": rows, "shard_tokens": tokens}
        facts["remarks"] = [[*key, *value] for key, value in remarks.items()]


def refuse_other_size(directory, tokens):
    """Raises InputError where a shard's file is not as long as so many tokens are."""
    path = directory / TOKENS
    size = path.stat().st_size if path.is_file() else None
    if size != 4 * tokens:
        found = "is missing" if size is None else f"has {size:,} bytes in place of {4 * tokens:,}"
        raise InputError(f"{path} is damaged: it {found}. Delete {directory.parent}; it is made again.")
