"""Ranking a large catalogue for many users, after encoding, on one thread; every run in its own process."""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import peers
from benchmarks.measure import Meter, Timing, in_a_process, must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.config import RankingFlags, RetrievalFlags
from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.evaluation.metrics import target_places
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.retrieval import TwoTower


@dataclass(frozen=True, kw_only=True)
class Ranked(RankingFlags, RetrievalFlags):
    """What ranking by vectors takes."""


TINY = {"users": 60, "items": 3000, "width": 32}
AHEAD = Goal("ratio", at_least=2.5)


@benchmark(unit="CPU s", goal=AHEAD, tiny=TINY)
def evaluation(inputs, users=10_000, items=400_000, width=64):
    """Places, counted."""
    return against_full_scores(inputs, users, items, width, "places")


@benchmark(unit="CPU s", goal=AHEAD, tiny=None)
def evaluation_wide(inputs, users=10_000, items=400_000, width=512):
    return against_full_scores(inputs, users, items, width, "places")


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=1.5), tiny=TINY)
def evaluation_lists(inputs, users=10_000, items=400_000, width=64):
    """Lists of the best 50, of --retrieval exact."""
    return against_full_scores(inputs, users, items, width, "exact")


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=1.5), tiny=TINY)
def evaluation_lists_faiss(inputs, users=10_000, items=400_000, width=64):
    return against_full_scores(inputs, users, items, width, "faiss")


@benchmark(unit="GB", goal=Goal("ratio", at_least=20), tiny=None)
def evaluation_memory(inputs, users=10_000, items=400_000, width=64):
    """Peak memory above the catalogue, of places and both kinds of lists, against the full score matrix.

    Raises:
        AssertionError: it grows with users x items.
    """
    full = 4 * users * items / 1e9
    most, found = 0.0, []
    for way in ("places", "faiss", "exact"):
        few, many = (run(inputs, n, items, width, way)[0]["growth_gb"] for n in (users // 10, users))
        if many - few > 0.02 * full:
            raise AssertionError(f"{way}: {few:.2f} GB for {users // 10} users, {many:.2f} for {users}")
        most = max(most, many)
        found.append(f"{way} {many:.2f}, with a tenth of the users {few:.2f}")
    return Result(most, full, full / most, note="; ".join(found))


@benchmark(unit="GB", goal=Goal("value", at_most=0.4), tiny=None)
def evaluation_millions(inputs, users=1000, items=2_000_000, width=64):
    """Peak memory above the table, of places and of lists by exact scores; FAISS in the note."""
    ways = ("places", "exact", "faiss")
    places, exact, faiss = (run(inputs, users, items, width, way)[0]["growth_gb"] for way in ways)
    table = 4 * items * width / 1e9
    note = f"{items:,} items x {users:,} users, D {width}, the table {table:.2f} besides"
    return Result(
        max(places, exact), note=f"{note}; places {places:.2f}, lists {exact:.2f}, by FAISS {faiss:.2f}"
    )


def against_full_scores(inputs, users, items, width, way):
    """CPU seconds, beside a peer that writes out every score of a batch of users."""
    ours, theirs = run(inputs, users, items, width, way, "full scores")
    # Where neighbours' scores differ by rounding only, their order is anyone's.
    must_agree("share of places", (ours["places"] == theirs["places"]).mean(), 1.0, 0.002)
    timings = (Timing(found["cpu"], found["wall"]) for found in (ours, theirs))
    return Result.of_times(*timings, f"{items:,} items x {users:,} users, D {width}")


def run(inputs, users, items, width, *ways):
    return in_a_process(rank, inputs.histories(users, items), items, width, ways)


def rank(histories, items, width, ways):
    """[{"wall", "cpu", "growth_gb", "places"} of ranking in each way]; a user is the newest item's vector."""
    catalogue = with_twins(items, width)
    held_out, table = twin_is_next(histories, items), torch.from_numpy(catalogue)

    def encode(histories, times=None):
        return table[[int(history[-1]) for history in histories]]

    found = []
    for way in ways:
        config = Ranked(retrieval="exact" if way == "exact" else "faiss")
        towers, k = TwoTower(encode, catalogue, config.retrieval), max(config.topk)
        with Meter() as meter:
            if way == "full scores":
                places = peers.places(encode, catalogue, held_out, k, config.eval_batch_size)
            elif way == "places":
                places = judge(towers, held_out, config).places
            else:
                places = target_places(lists(towers, histories, k, config.eval_batch_size), held_out.target)
        found.append(vars(meter) | {"places": places})
    return found


def lists(towers, histories, k, batch_size):
    """[E, k]"""
    blocks = (histories[first : first + batch_size] for first in range(0, len(histories), batch_size))
    return np.concatenate([towers.recommend(block, block, k) for block in blocks])


def with_twins(items, width):
    """[items, width]; the second half are noisy copies of the first, as near as the 20 nearest strangers.

    So a search for an item finds its twin at the first place, at a late one, or not at all.
    """
    rng = np.random.default_rng(0)
    half = rng.normal(size=(items // 2, width)).astype(np.float32)
    cosine = np.sqrt(1 - (items / 20) ** (-2 / width))  # about 20 / items of all directions are nearer
    noise = rng.normal(size=half.shape).astype(np.float32) * np.sqrt(1 / cosine**2 - 1)
    return np.concatenate([half, half + noise.astype(np.float32)])


def twin_is_next(histories, items):
    """HeldOut in which every user's target is the twin of the newest item."""
    target = np.array([(history[-1] + items // 2) % items for history in histories])
    ends = np.cumsum([len(history) for history in histories])
    starts = np.concatenate([[0], ends[:-1]])
    return HeldOut(np.arange(len(ends)), starts, ends, target, np.concatenate(histories))
