"""Shards made by all processes there are: ranks, their helpers, other runs with the same cache directory.

Whoever finds a shard that nobody holds takes it. It is held by a lock on one byte of a file, which the system
gives back when its holder dies, whatever killed it.
"""

import fcntl
import multiprocessing
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress

from tqdm import tqdm

from pixelrec_train import distributed
from pixelrec_train.data.tokens.shards import FACTS, rows_of, write_shard
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.run import resources, watchdog
from pixelrec_train.run.log import duration, say

LOOK = 0.1  # seconds between two looks for what others have finished
TOLD_EVERY = 30.0  # seconds between two lines in a log
PHASE = "tokenise samples"


class Work:
    """All shards of one store."""

    def __init__(self, directory, shards, files, renderer, run):
        """run: a name for this run, the same on all ranks."""
        self.directory, self.shards, self.files, self.renderer = directory, shards, files, renderer
        self.failure = directory / f"failed-{run}"

    def path(self, number):
        return self.directory / f"{number:06d}"

    def is_done(self, number):
        return (self.path(number) / FACTS).is_file()

    def left(self):
        return [number for number in range(len(self.shards)) if not self.is_done(number)]

    def do(self, beat):
        """Make shards until all are there. beat() is called every now and then."""
        left = self.left()
        with self.locks() as locks:
            while left:
                made = [number for number in left if self.make(number, locks, beat)]
                left = [number for number in left if not self.is_done(number)]
                beat()
                if left and not made:
                    time.sleep(LOOK)  # others hold what is left

    def make(self, number, locks, beat):
        """Whether it was free and is made now."""
        if self.is_done(number) or not claimed(locks, number):
            return False
        try:
            if not self.is_done(number):  # by who held it a moment ago
                write_shard(self.path(number), self.shards[number], self.files, self.renderer, beat)
            return True
        finally:
            fcntl.lockf(locks, fcntl.LOCK_UN, 1, number)

    @contextmanager
    def locks(self):
        """The file whose byte n is locked by who makes shard n. One process must open it once at a time."""
        with open(self.directory / "locks", "ab") as file:
            yield file

    def fail(self, error):
        """Tell all processes of this run; the first to fail is heard."""
        with suppress(OSError), open(self.failure, "x", encoding="utf-8") as file:
            file.write(str(error))

    def refuse_failure(self):
        """Raises the InputError of another process."""
        with suppress(FileNotFoundError):
            if said := self.failure.read_text(encoding="utf-8"):
                raise InputError(said)


def claimed(locks, number):
    """Whether byte `number` of the file is this process's now."""
    try:
        fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise InputError(
            f"files in {os.path.dirname(locks.name)} cannot be locked: {first_line(error)} Choose a "
            f"--cache_dir on a file system that can."
        ) from None


def do_together(work):
    """All shards, by every rank and its helpers; returns when the last is there.

    Raises:
        InputError: what stopped any of them.
    """
    progress = Progress(work)

    def beat():
        watchdog.at(PHASE)
        work.refuse_failure()
        progress()

    threads = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process for each core is faster than its threads
    helpers = helpers_for(work)
    try:
        for helper in helpers:
            helper.start()
        work.do(beat)
    except InputError as error:
        work.fail(error)
        raise
    finally:
        for helper in helpers:
            helper.kill()
            helper.join()
        os.environ["TOKENIZERS_PARALLELISM"] = threads or "true"
        progress.close()


def helpers_for(work):
    """As many processes as this rank has cores, less itself, and no more than there are shards to make."""
    cores = resources.cores() // distributed.ranks_here()
    count = max(0, min(cores, len(work.left())) - 1)
    # A copy of this process: it has the tokenizer already. It touches neither torch nor the other ranks.
    context = multiprocessing.get_context("fork")
    return [context.Process(target=help_with, args=(work, os.getpid()), daemon=True) for _ in range(count)]


def help_with(work, parent):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its helpers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def beat():
        if os.getppid() != parent or work.failure.exists():
            os._exit(0)

    try:
        work.do(beat)
    except InputError as error:
        work.fail(error)


class Progress:
    """How far all are: a bar on rank 0's terminal, else a line every 30 seconds; nothing of what is short."""

    def __init__(self, work):
        self.work, self.left = work, work.left()
        self.total = sum(map(rows_of, work.shards))
        self.begun = self.looked = self.told = time.monotonic()
        self.done_before = self.done = self.rows_done()
        hidden = distributed.rank() != 0 or not sys.stderr.isatty()
        self.bar = tqdm(
            total=self.total, initial=self.done, desc="tokenise", unit=" samples", disable=hidden, delay=2,
            leave=False,
        )  # fmt: skip

    def rows_done(self):
        self.left = [number for number in self.left if not self.work.is_done(number)]
        return self.total - sum(rows_of(self.work.shards[number]) for number in self.left)

    def __call__(self):
        now = time.monotonic()
        if distributed.rank() != 0 or now - self.looked < 1:
            return
        before, self.done, self.looked = self.done, self.rows_done(), now
        self.bar.update(self.done - before)
        if self.bar.disable and now - self.told >= TOLD_EVERY and self.done > self.done_before:
            self.told = now
            rate = (self.done - self.done_before) / (now - self.begun)
            say(
                f"{time.strftime('%H:%M:%S')} note | tokenise: {self.done:,} of {self.total:,} samples, "
                f"{rate:,.0f}/s, {duration((self.total - self.done) / rate)} left"
            )

    def close(self):
        self.bar.close()
