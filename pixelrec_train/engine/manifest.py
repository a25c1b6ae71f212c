"""Directories that are whole or not there: files with size and checksum, and a final name that comes last."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.files import digested, remove, write_json, write_whole
from pixelrec_train.run import watchdog
from pixelrec_train.run.checkpoints import LATEST, MANIFEST, inside, run_of, set_aside, take_away
from pixelrec_train.run.model_card import CARD, rename

BEST = "best_model"
CONVERTED = "converted"
# What our commands add to a checkpoint or write anew, and do not read from there.
MADE_LATER = ("eval-", f"{CONVERTED}/", f"{CONVERTED}.partial/", CARD)
OLDER = "Use an older checkpoint of the run, or start anew."


def write_manifest(directory, known):
    """List every file but the one for people, and wait until all are on the disk.

    known: {name: described(file)} of those that others wrote.
    """
    rest = {str(p.relative_to(directory)): p for p in directory.rglob("*") if p.is_file()}
    rest = {name: described(p) for name, p in rest.items() if name not in known and name != CARD}
    write_json(directory / MANIFEST, known | rest)
    for path in (directory, *directory.rglob("*")):
        to_disk(path)


def verify(directory, to_resume=True):
    """Raises InputError, on every rank, when a file is not as it was written, or was put there by another.

    to_resume: optimizer/ is needed as well.
    """
    directory = Path(directory)
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        names = sorted(name for name in dict(manifest) if to_resume or not name.startswith("optimizer/"))
    except (OSError, ValueError, TypeError, AttributeError):
        raise InputError(f"{directory} has no {MANIFEST} that can be read: it is damaged. {OLDER}") from None
    there = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    planted = sorted(
        n for n in there - {*manifest, MANIFEST} if not n.startswith(MADE_LATER) and "/." not in f"/{n}"
    )
    if planted:
        raise InputError(
            f"{directory} holds {', '.join(planted)}, which was not written with it. Remove it, or use "
            f"another checkpoint."
        )
    mine = names[distributed.rank() :: distributed.world_size()]
    wrong = [name for name in mine if name not in there or described(directory / name) != manifest[name]]
    wrong = sum(distributed.gather_objects(wrong), [])
    if wrong:
        raise InputError(
            f"{directory} is damaged: {', '.join(sorted(wrong))} missing, cut short or changed since it was "
            f"written. {OLDER}"
        )


@watchdog.busy("checking files")
def described(path):
    """[bytes, checksum] of a file; None where there is none."""
    if not path.is_file():
        return None
    return [path.stat().st_size, digested(hashlib.blake2b(digest_size=16), path).hexdigest()]


def put_in_place(partial, final, is_best):
    """Give a whole checkpoint its final name, and, if it is the best one, make it best_model."""
    old = set_aside(final)  # of a run that was killed after this one
    to_disk(partial)
    if final.exists():  # people's own files lie in step120
        os.replace(inside(partial), inside(final))
        partial.rmdir()
        to_disk(final)
    else:
        os.replace(partial, final)
    to_disk(final.parent)
    if old:
        shutil.rmtree(old)
    try:
        if is_best:
            link_tree(inside(final), final.parent / BEST)
    except OSError:
        take_away(final)
        raise


def let_go(run, before, kept):
    """Say which is the newest, where the layout has a file for that; remove those that are not kept."""
    if inside(run / kept[-1]) != run / kept[-1]:
        write_whole(run / LATEST, kept[-1])
    for name in before:
        if name not in kept:
            take_away(run / name)


def link_tree(source, destination):
    """Copy a directory with hard links where the file system has them, so that best_model costs no disk."""
    partial = destination.with_name(destination.name + ".partial")
    remove(partial)
    shutil.copytree(source, partial, copy_function=link_or_copy)
    rename(partial, source.relative_to(run_of(source)), destination.name)
    remove(destination)
    os.replace(partial, destination)


def link_or_copy(source, destination):
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


def to_disk(path):
    """Wait until a file, or what a directory lists, would survive a power cut."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
