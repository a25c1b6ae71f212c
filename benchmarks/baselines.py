"""Training the sequential baselines, an epoch of forward, backward and AdamW, against padded histories."""

from functools import partial

import numpy as np
import torch

from benchmarks import peers
from benchmarks.measure import interleaved, must_agree
from benchmarks.registry import Goal, Result, benchmark
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


def against_padding(inputs, name, users=8317, catalogue=4344, width=64):
    histories = inputs.histories(users, catalogue)
    items, stop = np.concatenate(histories), np.cumsum([len(h) for h in histories])
    start = stop - [len(h) for h in histories]
    times = np.sort(np.random.default_rng(0).integers(0, 10**9, len(items))).astype(float)
    stretches = np.random.default_rng(1).permutation(cut_stretches(start, stop, LONGEST))
    parts = np.split(stretches, range(BATCH, len(stretches), BATCH))
    collator = StretchCollator(items, times, None, 0, 0)
    torch.manual_seed(0)
    task = NextItemTask(MODELS[name](catalogue, LONGEST - 1, width, 2, 2, dropout=0.5))

    def ours(part):
        return task(collator.collate(part, np.zeros(0)))[0]

    def theirs(part):
        return peers.padded_next_item(task.model, *padded(part, items, times))[0]

    def epoch(loss):
        optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-3)
        for part in parts:
            loss(part).backward()
            optimizer.step()
            optimizer.zero_grad()

    task.eval()
    must_agree("losses", ours(parts[0]).item(), theirs(parts[0]).item(), 1e-4)
    task.train()
    times_of = interleaved(partial(epoch, ours), partial(epoch, theirs))
    note = f"{name}: an epoch, {users:,} users, {catalogue:,} items, batches of {BATCH} sequences"
    return Result.of_times(*times_of, note)


def padded(part, items, times):
    """[b, 2] stretches -> [b, S + 1] items and times, padded on the right, and [b] lengths."""
    start, length = part[:, 0], part[:, 1] - part[:, 0]
    place = np.arange(length.max())
    at = np.where(place < length[:, None], start[:, None] + place, start[:, None])
    return (torch.from_numpy(x) for x in (items[at], times[at], length))
