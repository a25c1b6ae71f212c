"""What is known of files without reading them again: their content as a digest, and their rows."""

import hashlib
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pixelrec_train import distributed
from pixelrec_train.data.samples.rows import row_counts
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import digested
from pixelrec_train.run import resources, watchdog

NAME = "sample_files.json"


class KnownFile(NamedTuple):
    size: int
    mtime_ns: int
    digest: str  # of all its bytes
    rows: list[int]  # of each row group


def known_files(paths, cache_dir):
    """[KnownFile] of Parquet files with samples.

    A file of the same place, size and time of change is the same and is not read again; the others are read
    once, each by one of the ranks, and remembered in the cache directory. All ranks call it alike.

    Raises:
        InputError: a file is damaged or lacks a column; on all ranks.
    """
    places = [os.path.realpath(path) for path in paths]
    stats = [os.stat(place) for place in places]
    memory = Path(cache_dir) / NAME
    known = remembered(memory)
    fresh = {
        place: known[place]
        for place, stat in zip(places, stats, strict=True)
        if place in known and known[place][:2] == (stat.st_size, stat.st_mtime_ns)
    }
    # What one rank knows already, all know; so all read the same files.
    for of_a_rank in distributed.gather_objects(fresh):
        fresh = of_a_rank | fresh
    unread = [(path, place) for path, place in zip(paths, places, strict=True) if place not in fresh]
    if unread:
        mine = unread[distributed.rank() :: distributed.world_size()]
        for of_a_rank in distributed.on_all_ranks(lambda: read(mine)):
            fresh |= of_a_rank
        if distributed.local_rank() == 0:
            remember(memory, remembered(memory) | fresh)
    return [fresh[place] for place in places]


def read(files):
    """[(path, place)] -> {place: KnownFile}"""

    def look(file):
        path, place = file
        stat = os.stat(place)  # before it is read: what changes it meanwhile makes it another
        rows = row_counts(path)
        digest = digested(hashlib.blake2b(digest_size=16), place).hexdigest()
        watchdog.at("read the samples' files")
        return place, KnownFile(stat.st_size, stat.st_mtime_ns, digest, rows)

    with ThreadPoolExecutor(min(8, resources.cores())) as threads:
        return dict(threads.map(look, files))


def remembered(memory):
    """{place: KnownFile}; nothing where the file is not there or is not as we wrote it."""
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
        return {place: KnownFile(*fields) for place, fields in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(memory, known):
    partial = memory.with_name(f"{NAME}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(known), encoding="utf-8")
        os.replace(partial, memory)
    except OSError as error:
        raise InputError(
            f"{memory} cannot be written: {first_line(error)} Is the disk full? See --cache_dir."
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink()
