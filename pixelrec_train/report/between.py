"""Runs against the first of them, user by user: what changed, by how much, and whether it is chance."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.user_places import FILE, UserPlaces, read_places
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.metrics import figures, paired_intervals, paired_p
from pixelrec_train.files import existing_directory
from pixelrec_train.report.evidence import SEED
from pixelrec_train.report.figures import by_history, by_taken
from pixelrec_train.report.run_files import EVALUATED, found_in, refuse_checkpoint, told_of

SHOWN = 5  # users of each way to change


class Side(NamedTuple):
    name: str  # the directory, as it was named
    found: UserPlaces  # in an order that all sides share
    places: np.ndarray  # [E] of its own model
    texts: dict[str, str]  # of items, as far as its report.json has them


class Delta(NamedTuple):
    """One figure of two runs, on the same users."""

    users: int
    before: float
    after: float
    interval: list[float]  # 95 %, of after - before
    p: float


class Pair(NamedTuple):
    """A run and the first."""

    first: Side
    other: Side
    k: int  # the cut-off of slices and changes
    metrics: dict[str, Delta]
    slices: dict[str, dict[str, Delta]]  # {"by popularity …": {group: Delta of recall@k}}
    gained: np.ndarray  # numbers of users: a miss in the first, a hit in the other
    lost: np.ndarray
    hits: int  # of both


def compare_runs(directories):
    """[Pair] of the first directory and each of the others.

    Args:
        directories: runs, or what scripts/evaluate_pixelrec.py left; each holds places.parquet.

    Raises:
        InputError: there are fewer than two or one is there twice, one has no places, or they were not judged
            on the same users, targets and candidates by the same rules.
    """
    first, *others = sides(directories)
    return [pair(first, other) for other in others]


def sides(directories):
    """[Side], once they are found to be comparable."""
    if len(directories) < 2:
        raise InputError("--runs needs at least two directories: --runs results/a,results/b.")
    seen = {}
    for directory in directories:
        before = seen.setdefault(Path(directory).resolve(), directory)
        if before is not directory:
            raise InputError(f"--runs names {directory} twice. Compare it with another run.")
    found = [side(directory) for directory in directories]
    return [found[0], *(aligned(found[0], other) for other in found[1:])]


def side(directory):
    directory = existing_directory(directory, "--runs")
    path = found_in(directory, FILE)
    refuse_checkpoint(directory, "--runs")
    if path is None and not (directory / "run.json").is_file():
        raise InputError(f"--runs {directory} is no run: it holds neither {FILE} nor run.json.")
    if path is None and not (directory / "table.json").is_file():
        raise InputError(f"--runs {directory} is a run that has not ended, so nobody has judged it yet.")
    if path is None:
        raise InputError(
            f"--runs {directory} holds no {FILE}: it is of an older version, or ranks nothing. Judge it: "
            f"scripts/evaluate_pixelrec.py --checkpoint {directory}/best_model --split test, which leaves it "
            f"in {EVALUATED}/."
        )
    found = read_places(path)
    told = told_of(directory)
    items = [item for one in told.get("examples", []) for item in (*one["history"], *one["list"]) if item]
    on_map = told.get("map", {"id": [], "text": []})
    texts = dict(zip(on_map["id"], on_map["text"], strict=True)) | {item[0]: item[1] for item in items}
    return Side(str(directory), found, found.places[found.model], texts)


def aligned(first, other):
    """The other Side in the order of the first."""
    a, b = first.found, other.found
    rules = {
        "judged the {} split": (a.split, b.split),
        "hold out another way ({})": (a.origin, b.origin),
        "rank {} candidates": (f"{a.items:,}", f"{b.items:,}"),
        "have --keep_seen {}": (a.keep_seen, b.keep_seen),
    }
    for words, (here, there) in rules.items():
        if here != there:
            raise differ(first, other, f"they {words.format(f'{here} and {there}')}")
    if not set(a.topk) & set(b.topk):
        raise differ(first, other, f"they have no cut-off in common ({a.topk} and {b.topk})")
    if len(a.user_id) != len(b.user_id):
        raise differ(first, other, f"they judged {len(a.user_id):,} and {len(b.user_id):,} users")
    mine, theirs = in_order(a), in_order(b)
    for x, y in zip(mine.tolist(), theirs.tolist(), strict=True):
        if a.user_id[x] != b.user_id[y]:
            raise differ(
                first, other, f"user {a.user_id[x]!r} is in one where {b.user_id[y]!r} is in the other"
            )
        if a.target[x] != b.target[y] or a.history[x] != b.history[y]:
            said = f"of user {a.user_id[x]!r} they hold out {a.target[x]!r} and {b.target[y]!r}"
            raise differ(first, other, f"{said}, behind {a.history[x]:,} and {b.history[y]:,} items")
    order = np.empty_like(theirs)
    order[mine] = theirs
    return other._replace(places=other.places[order])


def in_order(found):
    """Numbers of the users, sorted by who they are and what is asked of them."""

    def key(e):
        return found.user_id[e], int(found.history[e]), found.target[e]

    return np.array(sorted(range(len(found.user_id)), key=key), np.int64)


def differ(first, other, why):
    return InputError(
        f"--runs {first.name} and {other.name} cannot be compared: {why}. Judge both on the same data by the "
        f"same rules: scripts/evaluate_pixelrec.py."
    )


def pair(first, other):
    a, b = first.found, other.found
    topk = sorted(set(a.topk) & set(b.topk))
    k = 10 if 10 in topk else max(topk)
    everybody = np.ones(len(a.user_id), bool)
    metrics = deltas(first, other, everybody, topk)
    cold = {"never seen in training": a.cold, "seen": ~a.cold}
    slices = {
        "by popularity of the target": by_taken(a),
        "by length of the history": by_history(a),
        "cold targets": [(name, inside) for name, inside in cold.items() if inside.any()],
    }
    metric = f"recall@{k}"
    slices = {
        title: {label: deltas(first, other, inside, [k])[metric] for label, inside in parts}
        for title, parts in slices.items()
    }
    hit, now = first.places < k, other.places < k
    changed = (np.flatnonzero(x) for x in (~hit & now, hit & ~now))
    return Pair(first, other, k, metrics, slices, *changed, int((hit & now).sum()))


def deltas(first, other, inside, topk):
    """{metric: Delta} of these users."""
    before, after = first.places[inside], other.places[inside]
    before, after = (np.minimum(x, max(topk)) for x in (before, after))
    p, ends = paired_p(after, before, topk), paired_intervals(after, before, topk)
    old, new = figures(before, topk), figures(after, topk)
    return {name: Delta(len(before), old[name], new[name], ends[name], p[name]) for name in old}


def shown(numbers):
    """Some of the users, drawn by a fixed seed."""
    return np.sort(np.random.default_rng(SEED).permutation(numbers)[:SHOWN])


def changes(pair, numbers):
    """[(user, target, its text, place before, place after)], places from 1, or None where it is absent."""
    found = pair.first.found
    for e in shown(numbers).tolist():
        target = found.target[e]
        ends = (max(found.topk), max(pair.other.found.topk))
        sides = zip((pair.first.places[e], pair.other.places[e]), ends, strict=True)
        text = pair.first.texts.get(target) or pair.other.texts.get(target) or ""
        yield (
            found.user_id[e],
            target,
            text,
            *(int(place) + 1 if place < end else None for place, end in sides),
        )
