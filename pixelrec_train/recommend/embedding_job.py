"""Embed a catalogue over all ranks, a part at a time, so that a job that is ended loses a part of each rank.

A part of the items is a file, written by one rank, whole or not at all; the job goes on behind those that are
there, on any number of ranks, to the same bits. At the end they are joined into one table (item_cache.py).
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.data.cache import is_cached
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.evaluation.retrieval import ITEMS_PER_PART, blocks_of
from pixelrec_train.files import remove, whole, write_json
from pixelrec_train.recommend.item_cache import KIND, TABLE, differing, directory_of, way_of, write_item_ids
from pixelrec_train.run import watchdog
from pixelrec_train.run.directory import holder, lock
from pixelrec_train.run.log import say
from pixelrec_train.run.progress import progress

PLAN = "plan.json"  # how all parts are computed


class Job(NamedTuple):
    """What embeds which items."""

    encode: Callable  # Items -> [I, D], such as HLLMModel.encode_items
    item_text: ItemText
    item_ids: Sequence[str]
    mark: str  # names weights, texts and items
    source: str  # the same in words


def embed(job, cache_dir, eval_tokens, overwrite=False):
    """Embed all items, or those that are left; the directory where they lie. Every rank calls it.

    Memory of a rank: the model, one part of the table, and what is mapped.

    Raises:
        InputError: parts lie there that were computed in another way, or another job is at work, or ranks do
            not share the directory, or it cannot be written, or an embedding is not finite.
    """
    final = directory_of(cache_dir, job.mark)
    there = is_cached(cache_dir, KIND, job.mark)
    if distributed.from_first_rank(there and not overwrite):
        say(f"{final} is there already; nothing to do (--overwrite embeds anew)")
        return final
    parts = Parts(job, final.with_name(f"{final.name}.parts"), eval_tokens)
    with held(parts, overwrite):
        left = distributed.from_first_rank([n for n in parts.numbers if not parts.is_there(n)])
        if done := len(parts.numbers) - len(left):
            say(f"{done} of {len(parts.numbers)} parts are there already; going on")
        distributed.on_all_ranks(lambda: parts.write(left[distributed.rank() :: distributed.world_size()]))
        distributed.on_all_ranks(lambda: distributed.rank() or parts.join(final))
    return final


@contextlib.contextmanager
def held(parts, overwrite):
    """The directory of the parts is this job's alone while the block runs, and every rank sees it."""
    with contextlib.ExitStack() as stack:

        def begin():
            try:
                stack.enter_context(lock(parts.directory))
            except InputError:
                raise InputError(
                    f"another job (process {holder(parts.directory)}) embeds these items in "
                    f"{parts.directory}. Wait for it, or stop it."
                ) from None
            parts.begin(overwrite)

        distributed.on_all_ranks(lambda: distributed.rank() or begin())
        distributed.on_all_ranks(parts.check_seen)
        yield


class Parts:
    """Files of ITEMS_PER_PART rows each, in the order of the items."""

    def __init__(self, job, directory, eval_tokens):
        self.job, self.directory, self.eval_tokens = job, Path(directory), eval_tokens
        self.lengths = job.item_text.lengths
        self.numbers = range(-(-len(self.lengths) // ITEMS_PER_PART))
        self.plan = way_of(eval_tokens) | {"items per part": ITEMS_PER_PART}

    def path(self, number):
        return self.directory / f"part-{number:05}-of-{len(self.numbers):05}.npy"

    def count(self, number):
        """Items of a part."""
        return min(ITEMS_PER_PART, len(self.lengths) - number * ITEMS_PER_PART)

    def rows(self, number):
        """[n, D] of a part, mapped.

        Raises:
            ValueError, OSError, EOFError: it is not there, or cut short.
        """
        return np.load(self.path(number), mmap_mode="r")

    def is_there(self, number):
        with contextlib.suppress(ValueError, OSError, EOFError):
            return len(self.rows(number)) == self.count(number)
        return False

    def begin(self, overwrite):
        """The first rank's: the plan is written, or found to be the same."""
        known = self.known_plan()
        if overwrite or known is None:
            for path in self.directory.glob("part-*"):
                path.unlink()
        elif other := differing(known, self.plan):
            raise InputError(
                f"{self.directory} holds parts that were computed in another way: {other}. Start the command "
                f"as it was, or add --overwrite to embed all anew."
            )
        with self.writing():
            write_json(self.directory / PLAN, self.plan)

    def known_plan(self):
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.directory / PLAN).read_text(encoding="utf-8")))
        return None

    def check_seen(self):
        if self.known_plan() != self.plan:
            raise InputError(
                f"rank {distributed.rank()} does not find in {self.directory} what rank 0 has written there, "
                f"or computes in another way. On several machines --cache_dir must lie on a file system they "
                f"share, and the machines must be alike."
            )

    @torch.no_grad()
    def write(self, numbers):
        """Embed these parts, one file after the other."""
        with progress("embed the catalogue, a rank's share", sum(map(self.count, numbers)), "items") as tell:
            for number in numbers:
                watchdog.at(f"embedding the catalogue: part {number} of {len(self.numbers)}")
                rows = self.embedded(number, tell)
                self.job.item_text.let_go()  # else all tokens read so far stay in memory
                with self.writing(), whole(self.path(number)) as partial, open(partial, "wb") as file:
                    np.save(file, rows)
                    file.flush()
                    os.fsync(file.fileno())  # before it has its name: what is there has survived a power cut

    def embedded(self, number, tell):
        """[n, D] fp32 of a part."""
        table, first = None, number * ITEMS_PER_PART
        for block in blocks_of(self.lengths, number, self.eval_tokens):
            rows = self.job.encode(self.job.item_text.items(block).to(distributed.device()))
            rows = rows.float().cpu().numpy()
            if table is None:
                table = np.empty((self.count(number), rows.shape[1]), np.float32)
            if not np.isfinite(rows).all():
                bad = block[np.flatnonzero(~np.isfinite(rows).all(1))[0]]
                raise InputError(
                    f"the embedding of item {self.job.item_ids[bad]!r} by {self.job.source} is not finite. "
                    f"Are its weights whole?"
                )
            table[block - first] = rows
            tell(len(block))
        return table

    def join(self, final):
        """One table of all parts under its final name, with the ids of its rows; the parts are removed."""
        made = self.directory / "whole"
        width = self.rows(0).shape[1]
        with self.writing():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            with open(made / TABLE, "wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(self.lengths), width)}
                np.lib.format.write_array_header_1_0(file, header)
                for number in self.numbers:
                    watchdog.at(f"joining the parts: {number} of {len(self.numbers)}")
                    self.rows(number).tofile(file)
                os.fsync(file.fileno())
            write_item_ids(self.job.item_ids, made)
            facts = {"items": len(self.lengths), "width": width, "of": self.job.source, "way": self.plan}
            write_json(made / "facts.json", facts)
            remove(final)
            made.rename(final)
        shutil.rmtree(self.directory)

    @contextlib.contextmanager
    def writing(self):
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.directory} cannot be written: {first_line(error)} Is the disk full? Parts that are "
                f"whole stay: the same command goes on from them."
            ) from None
