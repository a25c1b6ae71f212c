"""Who encodes what: nothing twice over all ranks, no rank behind the others, and no number changed by it."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import peers
from benchmarks.batches import LENGTH, SMALL, batches, collator_and_samples, occurrences, two_tower
from benchmarks.inputs import LONGEST_TEXT
from benchmarks.item_tower import qwen3
from benchmarks.measure import must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train import distributed
from pixelrec_train.run import rendezvous, resources


@benchmark(unit="share", goal=Goal("value", at_least=0.99), tiny=SMALL)
def token_efficiency(inputs, hidden=64, layers=1, windows=16):
    """Of the item tower's linear layers, counted where the transformer is called."""
    task, batch, seen = two_tower(qwen3(hidden, layers)), batches(inputs, windows, ranks=1)[0], []
    task.model.item_llm.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    with torch.no_grad():
        _, logged = task(batch)
    must_agree("the logged figure", logged["token_efficiency"], batch.num_tokens / sum(seen), 1e-9)
    ours, theirs = (batch.num_tokens / n for n in (sum(seen), batch.num_items * (LONGEST_TEXT + 1)))
    note = f"{batch.num_tokens:,} tokens of {batch.num_items} items; peer: padded to {LONGEST_TEXT + 1}"
    return Result(ours, theirs, ours / theirs, note=note)


@benchmark(unit="x", goal=Goal("value", at_most=1.0), tiny={"ranks": 2, "windows": 2})
def items_encoded(inputs, ranks=8, windows=16):
    """Items encoded by all ranks over distinct items; HLLM encodes every place, padding included."""
    shares = batches(inputs, windows, ranks)
    distinct = len(set().union(*(batch.items.numbers.tolist() for batch in shares)))
    encoded, theirs = sum(batch.num_items for batch in shares), ranks * windows * 2 * LENGTH
    return Result(encoded / distinct, theirs / distinct, theirs / encoded,
                  note=f"{ranks} ranks x {windows} windows, {distinct:,} distinct items")  # fmt: skip


@benchmark(unit="x", goal=Goal("value", at_most=1.01), tiny={"ranks": (2,)})
def imbalance(inputs, ranks=(2, 3, 4), windows=16):
    """Tokens of the fullest rank over the mean; beside it each rank encoding its own distinct items."""
    ours = max(batches(inputs, windows, n)[0].token_imbalance for n in ranks)
    alone = []
    for n in ranks:
        tokens = [batch.num_tokens for batch in batches(inputs, windows, n, share_items=False)]
        alone.append(max(tokens) / np.mean(tokens))
    return Result(ours, max(alone), note=f"worst of {', '.join(map(str, ranks))} ranks x {windows} windows")


@benchmark(unit="error", goal=Goal("value", at_most=1e-5), tiny=SMALL)
def exactness(inputs, hidden=64, layers=2, windows=4):
    """Loss and gradients of two ranks with plan, dedup and packing, against every place's text read alone."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (inputs, hidden, layers, windows, resources.free_port(), folder)
        torch.multiprocessing.spawn(one_of_two_ranks, arguments, nprocs=2)
        error = json.loads(Path(folder, "error.json").read_text())
    return Result(error, note=f"2 ranks x {windows} windows; loss, and gradients over their largest entry")


def one_of_two_ranks(rank, inputs, hidden, layers, windows, port, folder):
    names = dict(RANK=rank, WORLD_SIZE=2, LOCAL_RANK=rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    os.environ.update({k: str(v) for k, v in names.items()} | {"OMP_NUM_THREADS": "1"})
    rendezvous.initialise(5)
    collator, samples = collator_and_samples(inputs, windows * 2)
    task = two_tower(qwen3(hidden, layers))
    loss, _ = task(collator(samples))
    loss.backward()
    loss = distributed.mean_tensor(loss.detach())
    ours = {n: distributed.mean_tensor(p.grad) for n, p in task.named_parameters() if p.grad is not None}
    if rank == 0:
        slow = two_tower(qwen3(hidden, layers), as_theirs=True)
        expected = peers.hllm_loss(slow, *occurrences(collator, samples), one_by_one=True)
        expected.backward()
        errors = [abs(float(loss / expected.detach()) - 1)]
        for name, parameter in slow.named_parameters():
            if (theirs := parameter.grad) is not None:
                # The temperature's gradient is a sum of scores (up to 14) that cancels: an absolute error.
                largest = 1.0 if name == "model.logit_scale" else float(theirs.abs().max())
                errors.append(float((ours[name] - theirs).abs().max()) / largest)
        Path(folder, "error.json").write_text(json.dumps(max(errors)))
    distributed.barrier()
    rendezvous.finish()
