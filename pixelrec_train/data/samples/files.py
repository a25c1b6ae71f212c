"""Which Parquet files hold a run's samples, from every way people have to say so; imports nothing heavy."""

import glob
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import missing

PARQUET = b"PAR1"  # a Parquet file begins and ends with it
LFS_POINTER = b"version https://git-lfs"
ENTRY_KEYS = ("path", "weight", "epochs")
NEEDED = "It must be a Parquet file, a directory or pattern of such, or a JSON list of them."


class Source(NamedTuple):
    """Files of a run that are read equally often."""

    files: tuple[Path, ...]
    weight: float | None = None  # its part of an epoch's samples, in proportion to the others'
    epochs: float | None = None  # how often its samples are read in an epoch; None = once, unless weighted


def sources_of(given, flag_name, beside=None):
    """[Source] of what a flag or a key of a JSON names.

    Args:
        given: a Parquet file, a directory (all its *.parquet), a pattern (part-*.parquet, **/*.parquet) or a
            JSON file with a list; several with commas between them; or a list of them. An entry of a list
            may be {"path": …, "weight": 0.3} or {"path": …, "epochs": 2}. Entries with neither are one
            Source together, at the place of the first.
        beside: where relative paths are looked up first, then in the current directory. In a JSON list that
            is the folder of the JSON.

    Raises:
        InputError: nothing is there, a file stands twice or is no Parquet file, the JSON is something else,
            or weights and epochs are mixed.
    """
    entries = list(entries_of(given, flag_name, beside))
    if not entries:
        raise InputError(f"{flag_name} names no file. {NEEDED}")
    kinds = {kind for source in entries for kind in ("weight", "epochs") if getattr(source, kind) is not None}
    plain = [source for source in entries if source.weight is None and source.epochs is None]
    if len(kinds) == 2 or "weight" in kinds and plain:
        other = "epochs" if len(kinds) == 2 else f"none (as {plain[0].files[0]})"
        raise InputError(
            f"{flag_name} gives some entries a weight and others {other}. Give a weight to all of them, or "
            f"epochs to those that are not read once."
        )
    together = Source(tuple(file for source in plain for file in source.files))
    found, told = [], False
    for source in entries:
        if source.weight is not None or source.epochs is not None:
            found.append(source)
        elif not told:
            found.append(together)
            told = True
    refuse_repeated(found, flag_name)
    return found


def entries_of(given, flag_name, beside):
    """A Source for each entry, with its files checked."""
    if isinstance(given, str) and not there(given, beside) and "," in given:
        given = [part.strip() for part in given.split(",") if part.strip()]
    if isinstance(given, list | tuple):
        for entry in given:
            yield from entries_of(entry, flag_name, beside)
    elif isinstance(given, dict):
        yield weighted(given, flag_name, beside)
    elif isinstance(given, str | Path) and str(given):
        path = found(str(given), flag_name, beside)
        if isinstance(path, Path) and path.is_file() and path.suffix.lower() == ".json":
            yield from entries_of(read_list(path, flag_name), f"{flag_name} {path}:", path.parent)
        else:
            files = tuple(parquet_files(path, flag_name))
            for file in files:
                check_parquet(file, flag_name)
            yield Source(files)
    else:
        raise InputError(f"{flag_name} names {json.dumps(given, default=str)[:80]}. {NEEDED}")


def weighted(entry, flag_name, beside):
    """The Source of {"path": …, "weight": 0.3} or {"path": …, "epochs": 2}."""
    told = json.dumps(entry, ensure_ascii=False, default=str)[:100]
    if unknown := [key for key in entry if key not in ENTRY_KEYS]:
        raise InputError(
            f"{flag_name} has an entry with a key {unknown[0]!r}: {told}. An entry has a path, and a weight "
            f"or epochs."
        )
    if "path" not in entry:
        raise InputError(f"{flag_name} has an entry without a path: {told}. Add it.")
    numbers = {key: entry[key] for key in ("weight", "epochs") if entry.get(key) is not None}
    for key, value in numbers.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise InputError(
                f"{flag_name} has an entry with {key} = {value!r}; it must be a positive number."
            )
    if len(numbers) == 2:
        raise InputError(f"{flag_name} has an entry with a weight and epochs: {told}. Leave one out.")
    inside = list(entries_of(entry["path"], flag_name, beside))
    if numbers and any(source.weight or source.epochs for source in inside):
        raise InputError(
            f"{flag_name} gives {told}, but entries in there have a weight or epochs of their own. Name "
            f"these entries in its place."
        )
    files = tuple(file for source in inside for file in source.files)
    return Source(files, **numbers)


def there(text, beside):
    """The path that a text names beside a JSON or in the current directory; None where nothing is."""
    for folder in filter(None, (beside, Path())):
        if os.path.exists(path := Path(folder, text)):
            return path
    return None


def found(text, flag_name, beside):
    """The Path of something that is there, or the sorted list of files that fit a pattern."""
    if "://" in text:
        how = f" (hdfs dfs -get {text})" if text.lower().startswith(("hdfs:", "viewfs:")) else ""
        raise InputError(f"{flag_name} {text} lies elsewhere; only local files are read. Copy it first{how}.")
    if path := there(text, beside):
        return path
    if not glob.has_magic(text):
        raise missing(Path(text), flag_name)
    for folder in filter(None, (beside, Path())):
        matching = sorted(glob.glob(str(Path(folder, text)), recursive=True))
        if files := [Path(name) for name in matching if name.endswith(".parquet") and os.path.isfile(name)]:
            return files
    raise InputError(f"{flag_name} {text} fits no *.parquet file (looked from {Path.cwd()}).")


def parquet_files(path, flag_name):
    """The files of a directory, sorted, without hidden and unfinished ones (._x, _temporary/x)."""
    if isinstance(path, list):
        return path
    if not path.is_dir():
        return [path]
    files = [
        file
        for file in sorted(path.rglob("*.parquet"))
        if file.is_file() and not any(part[0] in "._" for part in file.relative_to(path).parts)
    ]
    if not files:
        raise InputError(f"{flag_name} {path} is a directory without any *.parquet file. Name another.")
    return files


def read_list(path, flag_name):
    """The list of a JSON file. Raises InputError where it holds something else."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{flag_name} {path} is not valid JSON: {first_line(error)}") from None
    if not isinstance(listed, list):
        raise InputError(
            f"{flag_name} {path} must hold a JSON list of paths, but is {json.dumps(listed)[:60]}."
        )
    if not listed:
        raise InputError(f"{flag_name} {path} is an empty list. It must name Parquet files.")
    return listed


def check_parquet(path, flag_name):
    """Raises InputError where a file does not begin and end as a Parquet file does."""
    with open(path, "rb") as file:
        begin = file.read(len(LFS_POINTER))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(PARQUET)))
        end = file.read()
    if not begin:
        raise InputError(f"{flag_name} {path} is an empty file. Copy it again.")
    if begin == LFS_POINTER:
        raise InputError(f"{flag_name} {path} is a Git LFS pointer, not the file itself. Run: git lfs pull.")
    if not begin.startswith(PARQUET):
        raise InputError(f"{flag_name} {path} is no Parquet file. {NEEDED}")
    if end != PARQUET or size < 12:
        raise InputError(f"{flag_name} {path} was cut off ({size:,} bytes, without an end). Copy it again.")


def refuse_repeated(sources, flag_name):
    """Raises InputError where a file stands twice: how often it is read is a matter of epochs."""
    seen = set()
    for source in sources:
        for file in source.files:
            place = os.path.realpath(file)
            if place in seen:
                raise InputError(
                    f'{flag_name} names {file} twice. Name it once; {{"path": …, "epochs": 2}} reads it '
                    f"twice."
                )
            seen.add(place)
