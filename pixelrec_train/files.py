"""Files and directories: found or refused in words, digested, and written whole or not at all."""

import csv
import difflib
import json
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from pixelrec_train.errors import InputError

PACKAGE = Path(__file__).resolve().parent
# Where configs/ and requirements.txt lie: the repository, or what an installed package brings of it.
ROOT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE / "shipped"
ADAPTER_FILE = "adapter_config.json"
TOKENIZER = ("tokenizer*", "vocab*", "merges*", "*_tokens*.json", "*.model", "*.tiktoken", "tokenization*.py")


def existing_file(path, flag_name):
    """The path, or an InputError that says where it was looked for and what stands there instead."""
    path = Path(path)
    if os.path.isfile(path):  # unlike Path's, it says no where a name is too long for the system
        return path
    if os.path.isdir(path):
        raise InputError(f"{flag_name} {path} is a directory (looked from {Path.cwd()}); it must be a file.")
    raise missing(path, flag_name)


def existing_directory(path, flag_name):
    """The same for a directory."""
    path = Path(path)
    if os.path.isdir(path):
        return path
    if os.path.isfile(path):
        raise InputError(f"{flag_name} {path} is a file (looked from {Path.cwd()}); it must be a directory.")
    raise missing(path, flag_name)


def possible_directory(path, flag_name):
    """The path of a directory that is there or can be made, or an InputError that says what is in its way."""
    path = Path(path)
    there = next(p for p in (path, *path.parents, Path()) if os.path.lexists(p))
    if not there.is_dir():
        raise InputError(f"{flag_name} {path} must be a directory, but {there} is a file. Choose another.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{flag_name} {path} cannot be written: {there} does not allow it. Choose another.")
    return path


def replaceable_directory(path, flag_name, marks, maker, holds, overwrite):
    """Whether something lies in a directory that is going to be written: what the same command wrote, if so.

    Args:
        marks: files that it leaves in every directory it wrote.
        maker, holds: what writes them, and what lies there then, in words.

    Raises:
        InputError: it holds something else, or `overwrite` is False.
    """
    path = possible_directory(path, flag_name)
    if not path.is_dir() or not any(path.iterdir()):
        return False
    if not all((path / mark).is_file() for mark in marks):
        raise InputError(
            f"{flag_name} {path} holds files, but no {' with '.join(marks)}: no {maker} wrote it. Choose "
            f"another directory."
        )
    if not overwrite:
        raise InputError(
            f"{flag_name} {path} already holds {holds}. Choose another, or add --overwrite to replace it."
        )
    return True


def possible_file(path, flag_name):
    """The same for a file that is going to be written."""
    possible_directory(Path(path).parent, flag_name)
    if os.path.isdir(path):
        raise InputError(f"{flag_name} {path} is a directory; it must be a file to write. Choose another.")
    return Path(path)


def missing(path, flag_name):
    nearby = sorted(path.parent.glob("*")) if os.path.isdir(path.parent) else []
    match = difflib.get_close_matches(path.name, [p.name for p in nearby], n=1, cutoff=0.5)
    hint = f" {path.parent / match[0]} does: did you mean that?" if match else ""
    return InputError(f"{flag_name} {path} does not exist (looked from {Path.cwd()}).{hint}")


def is_adapter(directory):
    """Whether it holds an adapter as peft writes it, and no model."""
    directory = Path(directory)
    return (directory / ADAPTER_FILE).is_file() and not (directory / "config.json").is_file()


def base_of_adapter(directory):
    """What its adapter_config.json says it was trained on."""
    try:
        found = json.loads((Path(directory) / ADAPTER_FILE).read_text(encoding="utf-8"))
        return str(found["base_model_name_or_path"] or "an unnamed model")
    except (ValueError, KeyError, TypeError):
        return "an unnamed model"


def model_files(directory):
    """Where a model directory's config, tokenizer and all else but weights lie: an adapter's, in its base."""
    seen = {directory := Path(directory)}
    while is_adapter(directory) and (base := Path(base_of_adapter(directory))).is_dir() and base not in seen:
        seen.add(directory := base)
    return directory


def tokenizer_files(directory):
    """The files of a Hugging Face directory that make up its tokenizer, sorted by name.

    They name the token cache, and travel with an exported model.
    """
    return sorted({file for pattern in TOKENIZER for file in model_files(directory).glob(pattern)})


def digested(digest, *paths):
    """The hashlib object, once it has read these files."""
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest


def refuse_repeated_keys(pairs):
    """object_pairs_hook of json.loads, which would take the last of equal keys without a word.

    Raises:
        ValueError: a key stands there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {', '.join(twice[:5])} stands there twice")
    return found


def write_json(path, value):
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_whole(path, text):
    """Whole or not at all: written beside and moved into place."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


@contextmanager
def whole(path):
    """A path beside it to write to: the file is there once the block ends, and not at all if it fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_file(path):
    """The same as a text file to write into."""
    with whole(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        yield file


def write_csv(path, header, rows):
    """Write a table, whole or not at all: a run may be reading the old one."""
    with whole_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def made_whole(directory, make):
    """Write a directory, whole or not at all, in the place of what is there; folders above it are made.

    Args:
        make: is given an empty directory beside it.

    Returns:
        what `make` does
    """
    directory = Path(directory)
    partial = directory.with_name(f"{directory.name}.partial")
    remove(partial)
    above = [folder for folder in directory.parents if not folder.exists()]
    try:
        partial.mkdir(parents=True)
        made = make(partial)
        remove(directory)
        os.replace(partial, directory)
    finally:
        remove(partial)
        for folder in () if directory.exists() else above:
            if folder.exists():
                folder.rmdir()
    return made


def remove(directory):
    """Take its final name from a directory, then delete it, so that no half one is ever taken for whole."""
    going = (
        directory if directory.suffix == ".partial" else directory.with_name(f"{directory.name}.old.partial")
    )
    if going.exists():
        shutil.rmtree(going)
    if directory.exists():
        os.replace(directory, going)
        shutil.rmtree(going)
