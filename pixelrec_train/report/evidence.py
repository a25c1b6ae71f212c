"""What a run leaves for its report while model and data are at hand: places.parquet and report.json.

Both are small, and the page is made of them and of the run's other files alone, so it can be made again
anywhere. Who and what is drawn from many is drawn by one fixed seed, the same for every run.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelrec_train.files import write_json
from pixelrec_train.report.embedding_map import embedding_map, gauges

FILE = "report.json"
SEED = 0
EXAMPLES = 10  # users
NEWEST = 8  # items of a history that are shown
LISTED = 10  # items of a list
ON_MAP = 5000  # items
KINDS = 10  # values of a text column that have a colour of their own
LEAST = 0.2  # share of the items that must have one of these values
LONGEST = 160  # characters of a text


def example_users(held_out):
    """Numbers of the users that a report shows: drawn by SEED, whatever a model makes of them."""
    return drawn(len(held_out), EXAMPLES)


def items_on_map(num_items):
    """Numbers of the items whose embeddings a report draws."""
    return drawn(num_items, ON_MAP)


def drawn(count, most):
    return np.sort(np.random.default_rng(SEED).permutation(count)[:most])


def leave(
    directory, judged, model, inputs, held_out, ranking, data, split="test", texts=None, embeddings=None
):  # fmt: skip
    """Write places.parquet and report.json into a directory. On rank 0 alone.

    Args:
        judged: {name of a row: Judged} of all users of `held_out`; the lists of `model` are those of
            example_users, or None.
        model: whose run it is.
        inputs: data.inputs.Inputs.
        ranking: RankingFlags.
        data: DataFlags.
        split: which `held_out` is.
        texts: TextFlags; None = items are named by their ids alone.
        embeddings: [n, D] of items_on_map; None = there are none.
    """
    from pixelrec_train.data.user_places import UserPlaces, write_places  # brings pyarrow with it
    from pixelrec_train.data.views.parts import user_names

    parts, item_ids = inputs.split, np.array(list(inputs.interactions.item_ids), object)
    users = np.array(user_names(inputs.interactions, data), object)[held_out.users]
    known = held_out.target >= 0
    target, length = held_out.target[known], (held_out.end - held_out.start)[known]
    found = UserPlaces(
        users[known], item_ids[target], length, parts.popularity[target], parts.train_counts[target] == 0,
        {name: one.places for name, one in judged.items()},
        model, split, parts.origin, len(item_ids), sorted(ranking.topk),
        ranking.keep_seen,
    )  # fmt: skip
    write_places(directory, found)
    at = None if embeddings is None else items_on_map(len(item_ids))
    lists, who = judged[model].lists, example_users(held_out)
    shown = set() if at is None else set(at.tolist())
    if lists is not None:
        shown |= {item for e in who for item in (*held_out.history(e)[-NEWEST:].tolist(), held_out.target[e])}
        shown |= set(lists.items[:, :LISTED].ravel().tolist())
    shown = sorted(int(item) for item in shown if item >= 0)
    fields = texts_of([item_ids[item] for item in shown], texts)
    text = dict(zip(shown, (next(filter(None, f), "")[:LONGEST] for f in fields), strict=True))
    told = {"model": model, "seed": SEED, "dimensions": None if at is None else int(embeddings.shape[1])}
    if lists is not None:
        rows = zip(who.tolist(), lists.items, lists.scores, strict=True)
        told["examples"] = [example(held_out, users, item_ids, text, *row) for row in rows]
    if at is not None:
        told["gauges"] = gauges(embeddings)
        told["map"] = embedding_map(embeddings) | {
            "id": item_ids[at].tolist(),
            "text": [text[item] for item in at.tolist()],
            "taken": parts.popularity[at].tolist(),
        }
        place = {item: n for n, item in enumerate(shown)}
        told["map"] |= kinds([fields[place[item]] for item in at.tolist()], texts)
    write_json(Path(directory) / FILE, told)


def example(held_out, users, item_ids, text, e, items, scores):
    """One user: what they took, what was to be found, and the list they got."""

    def named(item):
        return [item_ids[item], text[item]]

    history, target = held_out.history(e), int(held_out.target[e])
    where = np.flatnonzero(items == target)
    best = zip(items[:LISTED].tolist(), scores[:LISTED].tolist(), strict=True)
    return {
        "user": users[e],
        "taken": len(history),
        "history": [named(item) for item in history[-NEWEST:].tolist()],
        "target": named(target) if target >= 0 else None,
        "place": int(where[0]) if len(where) else None,
        "listed": int((items >= 0).sum()),
        "list": [[*named(item), None if score != score else score] for item, score in best if item >= 0],
    }


def texts_of(item_ids, texts):
    """[values of --text_keys] of each item, () of one without a row."""
    if texts is None or not texts.text_data or not item_ids:
        return [()] * len(item_ids)
    from pixelrec_train.data.item_fields import read_fields  # brings pandas and pyarrow with it

    fields, _ = read_fields(item_ids, replace(texts, allow_missing_text=True))
    return [values or () for values in fields]


def kinds(fields, texts):
    """{"column": name, "kinds": commonest values, "kind": [n] which of them, -1 = another}; {} where the
    values of no text column repeat enough to say something.

    The column is that whose KINDS commonest values cover most items.
    """
    best = (LEAST * len(fields), None, [])
    for n in range(len(texts.text_keys) if any(fields) else 0):
        counts = Counter(values[n] for values in fields if values and values[n])
        common = counts.most_common(KINDS)
        covered = sum(count for _, count in common)
        if covered > best[0] and 2 <= len(counts) < len(fields) / 2:
            best = (covered, n, [value for value, _ in common])
    _, n, values = best
    if n is None:
        return {}
    number = {value: i for i, value in enumerate(values)}
    of_each = [number.get(f[n], -1) if f else -1 for f in fields]
    return {"column": texts.text_keys[n], "kinds": [v[:LONGEST] for v in values], "kind": of_each}
