"""What users often take, in words that somebody wrote: MiniOneRec's file of preferences, for `preference`.

A JSON list or JSON lines: {"user": …, "split": "train", "user_preference": a text or a list of texts,
"context": {"history_items": [item id, oldest first], "target_item": item id; without it, the last of these}}

Source: github.com/AkaliKong/MiniOneRec, data.py, which keeps what its file calls train. What the tables hold
out is not taught here whatever the file calls it.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from pixelrec_train.data.convert.reading import cell, item_id_of, lines_of
from pixelrec_train.data.views.minionerec import ids_before
from pixelrec_train.data.views.parts import Stretch
from pixelrec_train.data.views.rows import PARTS, facts
from pixelrec_train.data.views.view import ALL, LeftOut, Row
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import refuse_repeated_keys

FORM = (
    '{"user": …, "split": "train", "user_preference": "…", "context": {"history_items": [3, 7], '
    '"target_item": 5}}'
)


class Preference(NamedTuple):
    """What a file says of a user, and what they had taken by then, oldest first."""

    user_id: str
    split: str
    text: str
    item_ids: list[str]
    where: str


def read(path):
    """[Preference] of a file.

    Raises:
        InputError: it is of another form.
    """
    return [preference_of(entry, where) for where, entry in entries(Path(path))]


def entries(path):
    """Yields (where, what stands there)."""
    lines = [(number, line) for number, line in lines_of(path) if line.strip()]
    if not lines:
        raise InputError(f"--preference_data {path} is empty. It must hold {FORM} and more of these.")
    if not lines[0][1].lstrip().startswith("["):
        for number, line in lines:
            yield f"{path} line {number:,}", parsed(line, f"{path} line {number:,}")
        return
    listed = parsed("".join(line for _, line in lines), str(path))
    yield from ((f"{path}, entry {number:,}", entry) for number, entry in enumerate(listed, 1))


def parsed(text, where):
    try:
        return json.loads(text, object_pairs_hook=refuse_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {first_line(error)}") from None


def preference_of(entry, where):
    """Preference of an entry."""
    if not isinstance(entry, dict) or not isinstance(context := entry.get("context"), dict):
        raise InputError(f"{where} is {str(entry)[:60]!r}. It must be {FORM}.")
    user, split, told = (entry.get(name) for name in ("user", "split", "user_preference"))
    if not isinstance(user, str | int) or isinstance(user, bool):
        raise InputError(f"{where} has {str(user)[:40]!r} as its user. It must be a user id.")
    if split not in PARTS:
        raise InputError(f"{where} has {str(split)[:40]!r} as its split. It must be {', '.join(PARTS)}.")
    texts = told if isinstance(told, list) else [told or ""]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"{where} has {str(told)[:40]!r} as its user_preference. It must be a text or texts."
        )
    taken = context.get("history_items")
    if not isinstance(taken, list):
        raise InputError(f"{where} has {str(taken)[:40]!r} as its history_items. It must be a list of ids.")
    target = context.get("target_item")
    item_ids = [item_id_of(item_id, where) for item_id in [*taken, *([target] if target is not None else [])]]
    text = cell("\n".join(filter(None, map(str.strip, texts))), where)
    return Preference(str(user), split, text, item_ids, where)


def view_of(preferences, view):
    """A View that tells these preferences in the words of `view`, that of minionerec.py."""

    def rows(known, part, asked):
        number = {item_id: n for n, item_id in enumerate(known.item_ids)}
        taken, rows_of = taken_in(part), Counter()
        for told in preferences:
            if unknown := [item_id for item_id in told.item_ids if item_id not in number]:
                raise InputError(
                    f"{told.where} names the item {unknown[0]!r}, which is not in --interaction_data. Both "
                    f"must be of one data set."
                )
            items = [number[item_id] for item_id in told.item_ids]
            if why := left_out(told, items, part, taken[told.user_id]):
                yield LeftOut(why)
                continue
            nth = rows_of[told.user_id]
            rows_of[told.user_id] += 1
            if part.target is None and nth >= asked.samples:
                yield LeftOut("beyond --samples_per_user")
                continue
            stretch = Stretch((told.user_id, "told", nth), items[:-1][-asked.history :], items[-1:])
            said = ids_before(known, stretch) | {"target": known.said(stretch.targets)}
            yield Row(stretch.key, said | {"preference": told.text}, facts(known, stretch))

    return view._replace(rows=rows, needs=(), texts=(), most_history=ALL)


def taken_in(part):
    """{user id: [(items, target or None)]} of a Part."""
    taken = defaultdict(list)
    for s, (user_id, _) in enumerate(part.keys):
        target = None if part.target is None else int(part.target[s])
        taken[user_id].append((set(part.items[part.start[s] : part.end[s]].tolist()), target))
    return taken


def left_out(told, items, part, taken):
    """Why an entry is no sample of a part, in words; "" where it is one."""
    if told.split != part.name:
        return f"preferences of {told.split}"
    if len(items) < 2:
        return "preferences without a history"
    if not told.text:
        return "preferences without a text"
    if part.target is None:
        if not any(own >= set(items) for own, _ in taken):
            return "preferences of items that their user did not take in training"
    elif not any(own >= set(items[:-1]) and target == items[-1] for own, target in taken):
        return f"preferences whose target is not their user's of {part.name}"
    return ""
