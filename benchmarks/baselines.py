"""Training the sequential baselines, an epoch of forward, backward and AdamW: against padded histories, and
against the softmax over all of a large catalogue."""

from functools import partial

import numpy as np
import torch

from benchmarks import peers
from benchmarks.measure import interleaved, must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.negatives import SharedNegatives
from pixelrec_train.data.stretches import StretchCollator, cut_stretches
from pixelrec_train.tasks.next_item import NextItemTask
from pixelrec_train.trainings.train_sequential import MODELS

BATCH, LONGEST = 128, 51  # compare's own
TINY = {"users": 40, "catalogue": 60, "width": 8}


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=2), tiny=TINY)
def baselines(inputs, **sizes):
    """SASRec, with the defaults of scripts/compare.py."""
    return against_padding(inputs, "sasrec", **sizes)


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=1.5), tiny=TINY)
def baselines_hstu(inputs, **sizes):
    """HSTU, the cheapest of the others on padded rows."""
    return against_padding(inputs, "hstu", **sizes)


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=2), tiny=TINY)
def baselines_sampled(inputs, users=640, catalogue=200_000, width=64, draws=1024):
    """SASRec by a softmax over a draw, with logQ correction, against the one over all items."""
    items, times, parts = stretches_of(inputs, users, catalogue)
    task = made("sasrec", catalogue, width)
    counts = np.bincount(items, minlength=catalogue) + 1  # so that every item may be drawn

    def loss(negatives, part):
        collator = StretchCollator(items, times, negatives)
        return task(collator([(Slot(0, int(start), 0), start, end) for start, end in part]))[0]

    few = SharedNegatives(counts, draws, 0.5, True, seed=0)
    every = SharedNegatives(np.ones(catalogue), catalogue, 0.0, True, seed=0)
    task.eval()
    with torch.no_grad():
        must_agree("losses", loss(every, parts[0][:8]).item(), loss(None, parts[0][:8]).item(), 1e-4)
    task.train()
    ways = (partial(epoch, task, parts, partial(loss, negatives)) for negatives in (few, None))
    note = f"sasrec: {len(parts)} steps, {catalogue:,} items, {draws:,} of them drawn for each step"
    return Result.of_times(*interleaved(*ways), note)


def against_padding(inputs, name, users=8317, catalogue=4344, width=64):
    items, times, parts = stretches_of(inputs, users, catalogue)
    collator = StretchCollator(items, times)
    task = made(name, catalogue, width)

    def ours(part):
        return task(collator.collate(part))[0]

    def theirs(part):
        return peers.padded_next_item(task.model, *padded(part, items, times))[0]

    task.eval()
    must_agree("losses", ours(parts[0]).item(), theirs(parts[0]).item(), 1e-4)
    task.train()
    times_of = interleaved(*(partial(epoch, task, parts, loss) for loss in (ours, theirs)))
    note = f"{name}: an epoch, {users:,} users, {catalogue:,} items, batches of {BATCH} sequences"
    return Result.of_times(*times_of, note)


def stretches_of(inputs, users, catalogue):
    """Items and times of all histories, and the [b, 2] stretches of each batch."""
    histories = inputs.histories(users, catalogue)
    items, stop = np.concatenate(histories), np.cumsum([len(h) for h in histories])
    start = stop - [len(h) for h in histories]
    times = np.sort(np.random.default_rng(0).integers(0, 10**9, len(items))).astype(float)
    stretches = np.random.default_rng(1).permutation(cut_stretches(start, stop, LONGEST))
    return items, times, np.split(stretches, range(BATCH, len(stretches), BATCH))


def made(name, catalogue, width):
    torch.manual_seed(0)
    return NextItemTask(MODELS[name](catalogue, LONGEST - 1, width, 2, 2, dropout=0.5))


def epoch(task, parts, loss):
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-3)
    for part in parts:
        loss(part).backward()
        optimizer.step()
        optimizer.zero_grad()


def padded(part, items, times):
    """[b, 2] stretches -> [b, S + 1] items and times, padded on the right, and [b] lengths."""
    start, length = part[:, 0], part[:, 1] - part[:, 0]
    place = np.arange(length.max())
    at = np.where(place < length[:, None], start[:, None] + place, start[:, None])
    return (torch.from_numpy(x) for x in (items[at], times[at], length))
