"""OneRec-Think's files of a data set: NAME.pretrain.json and sequential_data_processed.txt.

NAME.pretrain.json              {item id: {"title": …, "description": …, "categories": …, "sid": …}}
sequential_data_processed.txt   a user a line: user id, then item ids, oldest first, with spaces between

Source: wangshy31/OneRec-Think; for what is taken of it, src/prep_onerec_data.py of its fork
ZLHe0/OneRec-Think.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.convert.reading import (
    cell,
    field,
    item_id_of,
    lines_of,
    listed,
    needed,
    patterns_of,
    read_object,
)
from pixelrec_train.data.convert.tables import Tables
from pixelrec_train.errors import InputError
from pixelrec_train.files import write_json, write_whole
from pixelrec_train.semantic_id.codecs import CODECS, LETTERS
from pixelrec_train.semantic_id.codes import ABSENT, SemanticIds

ITEMS, SEQUENCES = ".pretrain.json", "sequential_data_processed.txt"
SIZE = 256  # codes of each level of theirs
FEWEST = 3  # known items of a user in their splits: one read, one to validate, one to test


class Catalogue(NamedTuple):
    """The items whose ids are sound, in the order of the file."""

    fields: dict[str, tuple[str, str, str]]  # item id -> title, categories, description
    ids: SemanticIds
    broken: dict[str, str]  # item id -> what stands there for an id
    beyond: set[str]  # item ids behind --limit

    def line(self):
        """In words."""
        total = len(self.fields) + len(self.broken) + len(self.beyond)
        shared = len(self.fields) - len(set(map(tuple, self.ids.codes.tolist())))
        line = f"items: {len(self.fields):,} of {total:,}, with ids of {self.ids.levels} levels"
        line += f"; {shared:,} share their id with an earlier one" * bool(shared)
        if self.broken:
            line += f"; left out, as their id is broken: {len(self.broken):,} ({listed(self.broken)})"
        return line + f"; behind --limit: {len(self.beyond):,}" * bool(self.beyond)


def read(directory, name=None, limit=None, codebook_sizes=()):
    """(Tables, name of the data set) of a directory with their two files.

    Items whose id is broken, and rows of items that are not there, are left out, counted and named.

    Args:
        name: None = that of the only *.pretrain.json.
        limit: items with a sound id and lines of sequences that are read, as their --limit; None = all.
        codebook_sizes: codes of each level; () = 256 of as many levels as most ids have.

    Raises:
        InputError: a file is missing or of another form, or hardly an id is sound.
    """
    path = needed(directory, patterns_of(name, "{name}" + ITEMS))
    catalogue = read_items(path, limit, codebook_sizes)
    sequences = needed(directory, [SEQUENCES])
    histories, absent, empty = read_sequences(sequences, catalogue, limit)
    short = [user for user, items in histories.items() if len(items) < FEWEST]
    name, rows = path.name.removesuffix(ITEMS), sum(map(len, histories.values()))
    said = [catalogue.line(), f"interactions: {rows:,} of {len(histories):,} users"]
    for why, items in absent.items():
        if items:
            said[-1] += f"; left out, as their item {why}: {items.total():,} ({listed(items)})"
    if empty:
        said.append(f"users without a known item, left out: {len(empty):,} ({listed(empty)})")
    if short:
        said.append(
            f"users with fewer than {FEWEST} known items, whom OneRec-Think's splits leave out: "
            f"{len(short):,} ({listed(short)})"
        )
    facts = {
        "source": "onerec_think", "name": name, "files": [path.name, sequences.name],
        "items": len(catalogue.fields), "users": len(histories), "interactions": rows, "limit": limit,
        "broken_items": catalogue.broken, "items_behind_limit": len(catalogue.beyond),
        "left_out_of_histories": {why: dict(items) for why, items in absent.items()},
        "users_without_items": empty, f"users_with_fewer_than_{FEWEST}_items": short,
    }  # fmt: skip
    items = [(item_id, *fields) for item_id, fields in catalogue.fields.items()]
    return Tables(items, histories, catalogue.ids, None, facts, said), name


def read_items(path, limit, codebook_sizes):
    """Catalogue of NAME.pretrain.json."""
    found = read_object(path, 'an object with "title", "description", "categories" and "sid"')
    fields, codes = {}, {}
    for item_id, item in found.items():
        where = f"{path}: item {item_id!r}"
        if not isinstance(item, dict):
            raise InputError(
                f'{where} is {str(item)[:60]!r}. It must be an object with "title", "sid" and so on.'
            )
        fields[item_id] = tuple(field(item, key, where) for key in ("title", "categories", "description"))
        codes[item_id] = codes_of(item.get("sid"))
    usual = Counter(len(own) for own in codes.values() if own).most_common(1)
    sizes = tuple(codebook_sizes) or (SIZE,) * (usual[0][0] if usual else 0)
    sound = {item_id: own for item_id, own in codes.items() if fits(own, sizes)}
    if 2 * len(sound) <= len(codes):
        first = next(item_id for item_id in codes if item_id not in sound)
        example = CODECS["onerec"].text((99, 19, 220, 204), (SIZE,) * 4)
        raise InputError(
            f"{path}: {len(codes) - len(sound):,} of {len(codes):,} ids are broken, {shown(found[first])} of "
            f"item {first!r} for one. One reads {example}; codebooks of other sizes than {SIZE} are told by "
            f"--codebook_sizes."
        )
    kept, beyond, broken = [], set(), {}
    for item_id in codes:
        if len(kept) == limit:  # as theirs: what stands behind the last item that is read is never looked at
            beyond.add(item_id)
        elif item_id in sound:
            kept.append(item_id)
        else:
            broken[item_id] = shown(found[item_id])
    table = np.array([sound[item_id] for item_id in kept], np.int32)
    facts = {"imported_from": path.name, "codec": "onerec", "code_base": 0}
    ids = SemanticIds(kept, table, sizes, facts)
    return Catalogue({item_id: fields[item_id] for item_id in kept}, ids, broken, beyond)


def shown(item):
    """What an item has for an id."""
    return repr(item.get("sid"))[:80]


def codes_of(sid):
    """[code] of an id in their spelling; None where it is none."""
    codec = CODECS["onerec"]
    if not isinstance(sid, str) or not (sid.startswith(codec.begin) and sid.endswith(codec.end)):
        return None
    words = sid.removeprefix(codec.begin).removesuffix(codec.end).replace("><", "> <").split(" ")
    return codec.read(words) if len(words) <= len(LETTERS) else None


def fits(codes, sizes):
    """Whether an id has a code of each level, of its codebook."""
    return bool(codes) and len(codes) == len(sizes) and all(c < s for c, s in zip(codes, sizes, strict=True))


def read_sequences(path, catalogue, limit):
    """({user: known items}, {why: Counter of the items that are left out}, users without a known item)"""
    histories, empty, line_of = {}, [], {}
    absent = {"has a broken id": Counter(), "is unknown": Counter(), "is behind --limit": Counter()}
    for number, line in lines_of(path):
        if limit and number > limit:
            break
        user, *items = line.split() or [""]
        if not user:
            continue
        if user in line_of:
            raise InputError(
                f"{path} has the user {user!r} in lines {line_of[user]:,} and {number:,}. A user is one "
                f"line: join them, oldest item first."
            )
        line_of[cell(user, f"{path} line {number:,}")] = number
        known = [item_id for item_id in items if item_id in catalogue.fields]
        if len(known) < len(items):
            for item_id in items:
                if item_id not in catalogue.fields:
                    absent[why_absent(item_id, catalogue)][item_id] += 1
        if known:
            histories[user] = known
        else:
            empty.append(user)
    if not histories:
        raise InputError(
            f"{path} holds no line with an item of the data set{' within --limit' * bool(limit)}. A line is "
            f"a user id, then item ids, oldest first, with spaces between: U0 24 9 13."
        )
    return histories, absent, empty


def why_absent(item_id, catalogue):
    if item_id in catalogue.broken:
        return "has a broken id"
    return "is behind --limit" if item_id in catalogue.beyond else "is unknown"


def write(directory, name, item_ids, codes, codebook_sizes, titles, descriptions, categories, users):
    """Write their two files into a directory, as `read` reads them.

    Args:
        codes: [N, L] of the items, from 0.
        titles, descriptions, categories: [N] texts.
        users: iterable of (user id, [item id, oldest first]).

    Raises:
        InputError: an id has no place in their format: an item's of fewer levels than others, or a user's
            or an item's with spaces in it.
    """
    codes, codec = np.asarray(codes), CODECS["onerec"]
    if (codes == ABSENT).any():
        raise InputError("OneRec-Think's files hold ids of one length, but some items have fewer levels.")
    where = f"{name}{ITEMS}"
    item_ids = [item_id_of(item_id, where) for item_id in item_ids]
    spelled = (codec.text(row, codebook_sizes) for row in codes.tolist())
    rows = zip(item_ids, titles, descriptions, categories, spelled, strict=True)
    keys = ("title", "description", "categories", "sid")
    write_json(Path(directory, where), {item: dict(zip(keys, values, strict=True)) for item, *values in rows})
    lines = []
    for user, items in users:
        if len(str(user).split()) != 1:
            raise InputError(f"{SEQUENCES} parts ids by spaces: user {user!r} has no place there. Rename it.")
        lines.append(" ".join(map(str, (user, *items))) + "\n")
    write_whole(Path(directory, SEQUENCES), "".join(lines))
