"""Arrays computed once and memory-mapped ever after, shared by all ranks and workers of a machine."""

import hashlib
import json
import mmap
import os
import shutil
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import digested
from pixelrec_train.run import watchdog


def cached(cache_dir, kind, fingerprint, build, mode="r"):
    """Load <cache_dir>/<kind>-<fingerprint>/, building it first when it is not there.

    Args:
        fingerprint: names the inputs; another input is another directory, so nothing goes stale.
        build: () -> (arrays, facts): a dict of numpy arrays or ArrayFiles, and a dict JSON can hold.
        mode: as of loaded.

    Returns:
        ({name: memory-mapped array}, facts)
    """
    directory = Path(cache_dir) / f"{kind}-{fingerprint}"
    with distributed.first_on_each_machine():
        if not is_cached(cache_dir, kind, fingerprint):
            with watchdog.busy(f"preparing {directory.name}"):
                write(directory, *build())
    return loaded(directory, mode)


def loaded(directory, mode="r"):
    """({name: memory-mapped array}, facts) of a directory that is complete. Waits for no other rank, so that
    a loader's workers may call it.

    mode: "c" = who writes into an array writes into a copy of the page, and not into the file.
    """
    try:
        facts = json.loads((directory / "facts.json").read_text(encoding="utf-8"))
        # As a plain array: a slice of a np.memmap costs ten times one of that.
        arrays = {p.stem: np.asarray(np.load(p, mmap_mode=mode)) for p in directory.glob("*.npy")}
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{directory} is damaged: {first_line(error)} Delete it; it is made again."
        ) from None
    return arrays, facts


def is_cached(cache_dir, kind, fingerprint):
    """Whether it is there, and complete: facts.json is written last."""
    return (Path(cache_dir) / f"{kind}-{fingerprint}" / "facts.json").is_file()


def let_go(array):
    """Of a mapped array, what of it lies in this process's memory; it is read again where it is asked for."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    if array is not None and hasattr(mmap, "MADV_DONTNEED"):
        array.madvise(mmap.MADV_DONTNEED)


def write(directory, arrays, facts):
    """The arrays and facts of a cache, whole or not at all."""
    with beside(directory) as (partial, told):
        for name, array in arrays.items():
            if isinstance(array, ArrayFile):
                array.save(partial / f"{name}.npy")
            else:
                np.save(partial / f"{name}.npy", array)
        told |= facts


@contextmanager
def beside(directory):
    """Build beside and move into place, so that a killed build is never mistaken for a cache.

    Gives (a new directory to write into, a dict for facts.json, which is written last).
    """
    partial = directory.with_name(f"{directory.name}.{socket.gethostname()}.{os.getpid()}.partial")
    facts = {}
    try:
        partial.mkdir(parents=True)
        yield partial, facts
        (partial / "facts.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        if directory.exists() and not (directory / "facts.json").exists():  # an incomplete leftover
            shutil.rmtree(directory)
        os.replace(partial, directory)
    except OSError as error:
        # Else another machine on the same file system was faster, with the same arrays.
        if not (directory / "facts.json").exists():
            raise unwritable(directory, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def writing(directory):
    """What the system says against writing there is a sentence."""
    try:
        yield
    except OSError as error:
        raise unwritable(directory, error) from None


def unwritable(directory, error):
    return InputError(
        f"{directory} cannot be written: {first_line(error)} Is the disk full? See --cache_dir."
    )


def nameless(cache_dir):
    """A new file in --cache_dir that nobody else sees: it is gone when the process is, however that ends."""
    with writing(cache_dir):
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=cache_dir)


class ArrayFile:
    """An array [n] that grows in a nameless file, larger than memory."""

    def __init__(self, cache_dir, dtype):
        self.directory, self.dtype, self.count = Path(cache_dir), np.dtype(dtype), 0
        self.file = nameless(cache_dir)

    def write(self, array):
        """Behind what is there."""
        with writing(self.directory):
            self.file.write(np.ascontiguousarray(array, self.dtype))
        self.count += len(array)

    def save(self, path):
        """The file that np.save would write."""
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": (self.count,)})
            self.file.seek(0)
            shutil.copyfileobj(self.file, file, 1 << 22)


@watchdog.busy("reading files")
def fingerprint(*parts):
    """16 hex digits that name the inputs: files by their content, everything else by its repr."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, Path):
            digested(digest, part)
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()
