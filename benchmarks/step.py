"""The whole training step: time against HLLM's and against the machine's limit, memory, waiting for data."""

import copy

import numpy as np
import torch
from transformers import AutoModel

from benchmarks import peers
from benchmarks.batches import SMALL, batches, collator_and_samples, occurrences, two_tower, windows_of
from benchmarks.inputs import LONGEST_TEXT
from benchmarks.item_tower import qwen3
from benchmarks.measure import (
    GEMM_SIZE,
    TINY_GEMM,
    Meter,
    gemm_ceiling,
    in_a_process,
    interleaved,
    must_agree,
)
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.data.loader import Loader, Slot
from pixelrec_train.model.text_encoder import TextEncoder


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=1.8), tiny=SMALL)
def step_vs_hllm(inputs, hidden=256, layers=4, windows=16):
    """A whole training step, optimizer included, against HLLM's algorithm without its LM head."""
    collator, samples = collator_and_samples(inputs, windows)
    places = occurrences(collator, samples)
    task, peer = two_tower(qwen3(hidden, layers)), two_tower(qwen3(hidden, layers), as_theirs=True)

    def ours():
        return step(task, lambda: task(collator(samples))[0])

    def theirs():
        return step(peer, lambda: peers.hllm_loss(peer, *places))

    must_agree("loss of the first step", ours(), theirs(), 1e-4)
    texts, distinct = len(places[0].numbers), collator(samples).num_items
    note = f"{windows} windows of {texts} places, {distinct} distinct items"
    return Result.of_times(*interleaved(ours, theirs), note)


@benchmark(unit="of GEMM", goal=Goal("value", at_least=0.55), tiny=SMALL | {"gemm": TINY_GEMM})
def mfu_fp32(inputs, hidden=256, layers=4, windows=4, gemm=GEMM_SIZE):
    return model_flops_utilisation(inputs, hidden, layers, windows, "fp32", gemm)


@benchmark(unit="of GEMM", goal=Goal("value", at_least=0.4), tiny=SMALL | {"gemm": TINY_GEMM})
def mfu_bf16(inputs, hidden=256, layers=4, windows=4, gemm=GEMM_SIZE):
    return model_flops_utilisation(inputs, hidden, layers, windows, "bf16", gemm)


@benchmark(unit="of GEMM", goal=Goal("value", at_least=0.55), tiny=SMALL | {"gemm": TINY_GEMM})
def mfu_whole_step(inputs, hidden=256, layers=4, windows=4, gemm=GEMM_SIZE):
    """mfu_fp32 with the batch made, and the weights moved by AdamW."""
    return model_flops_utilisation(inputs, hidden, layers, windows, "fp32", gemm, whole=True)


def model_flops_utilisation(inputs, hidden, layers, windows, precision, gemm, whole=False):
    """Model FLOPs of real tokens, over CPU time, over the measured GEMM ceiling; forward and backward.

    whole: collation and optimizer count as time, too.
    """
    task, batch = two_tower(qwen3(hidden, layers)), batches(inputs, windows, ranks=1)[0]
    collator, samples = collator_and_samples(inputs, windows)
    if precision == "bf16":
        task = task.bfloat16()

    def ours():
        return step(task, lambda: task(collator(samples) if whole else batch)[0], update=whole)

    ours()
    (timing,) = interleaved(ours)
    rate = model_flops(task, batch) / timing.cpu / 1e9
    ceiling = gemm_ceiling(gemm)[precision]
    return Result(rate / ceiling, wall=timing.wall,
                  note=f"{rate:.0f} of {ceiling:.0f} GFLOP/s, {batch.num_tokens:,} tokens")  # fmt: skip


def model_flops(task, batch):
    """6 FLOPs per weight and token; attention's two products over the half each text sees (PaLM, app. B).

    Only what has to be computed counts: of the last layer's MLP and output projection, the [ITEM] tokens.
    """
    config = task.model.item_llm.backbone.config
    weights = {
        name: sum(p.numel() for n, p in tower.backbone.named_parameters() if "embed_tokens" not in n)
        for name, tower in (("item", task.model.item_llm), ("user", task.model.user_llm))
    }
    lengths = batch.items.texts.lengths.double()
    attention = 6 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    last = task.model.item_llm.backbone.layers[-1]
    spared = sum(p.numel() for part in (last.mlp, last.self_attn.o_proj) for p in part.parameters())
    linear = weights["item"] * batch.num_tokens + weights["user"] * batch.history.numel()
    linear -= spared * (batch.num_tokens - batch.num_items)
    scores = batch.history.numel() * len(batch.negatives) * config.hidden_size
    return 6 * (linear + scores) + attention * float(lengths.square().sum())


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=1.0), tiny=None)
def compiled_step(inputs, hidden=256, layers=4, windows=2):
    """--compile against not; the compiler's own time does not count, and is in the note."""
    batch, eager = batches(inputs, windows, ranks=1)[0], two_tower(qwen3(hidden, layers))
    compiled = copy.deepcopy(eager)
    compiled.model.compile_towers()

    def ours():
        return step(compiled, lambda: compiled(batch)[0], update=False)

    def theirs():
        return step(eager, lambda: eager(batch)[0], update=False)

    with Meter() as first:
        loss = ours()
    must_agree("loss", loss, theirs(), 1e-5)
    for (name, p), q in zip(compiled.named_parameters(), eager.parameters(), strict=True):
        if q.grad is not None:
            must_agree(f"gradient of {name}", p.grad, q.grad, 1e-4 * float(q.grad.abs().max()))
    note = f"peer: not compiled; the first step took {first.wall:.0f} s"
    return Result.of_times(*interleaved(ours, theirs), note)


@benchmark(unit="GB", goal=Goal("ratio", at_least=3.5), tiny=None)
def activation_memory(inputs, tokens=15_000, chunk_tokens=2_000):
    """Peak memory of the item tower's forward and backward pass above its weights and gradients.

    The peer recomputes nothing; layer by layer, which is our default without chunks, stands in the note.
    """
    ours = in_a_process(item_tower_memory, inputs, tokens, chunk_tokens)
    theirs = in_a_process(item_tower_memory, inputs, tokens, tokens)
    layers = in_a_process(item_tower_memory, inputs, tokens, tokens, True)
    double = in_a_process(item_tower_memory, inputs, 2 * tokens, chunk_tokens)
    note = f"{tokens:,} tokens, chunks of {chunk_tokens:,}; {double:.2f} GB for twice the tokens"
    note += f"; by layer {layers:.2f} GB"
    return Result(ours, theirs, theirs / ours, note=note)


def item_tower_memory(inputs, tokens, chunk_tokens, by_layer=False, hidden=256, layers=4):
    torch.manual_seed(0)
    encoder = TextEncoder(AutoModel.from_config(qwen3(hidden, layers)), 1, LONGEST_TEXT + 1)
    if by_layer:
        encoder.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        encoder.train()
    texts = inputs.packed_texts(int(tokens / np.minimum(inputs.item_tokens, LONGEST_TEXT).mean()))
    encoder(texts.part(0, 2)).sum().backward()  # gradients and the libraries' buffers are there
    with Meter() as meter:
        encoder(texts, -(-tokens // chunk_tokens)).square().sum().backward()
    return meter.growth_gb


@benchmark(unit="%", goal=Goal("value", at_most=2), tiny=SMALL)
def data_wait(inputs, hidden=256, layers=4, windows=4, steps=8):
    """Time the step waits for its batch, which one worker process prepares; the first does not count."""
    collator, _ = collator_and_samples(inputs, windows)
    found = windows_of(inputs)
    dataset = [(Slot(0, n, n), window, None) for n, window in enumerate(found[: windows * (steps + 1)])]
    loader = Loader(SlotOrder(dataset), collator, windows, seed=0, num_workers=1, of_all_ranks=True)
    task, waited, worked = two_tower(qwen3(hidden, layers)), [], []
    arriving = loader.epoch(0)
    for _ in range(steps + 1):
        with Meter() as wait:
            batch = next(arriving)
        with Meter() as work:
            step(task, lambda batch=batch: task(batch)[0])
        waited.append(wait.wall)
        worked.append(work.wall)
    share = sum(waited[1:]) / (sum(waited[1:]) + sum(worked[1:]))
    note = f"{1000 * np.median(waited[1:]):.1f} ms of {np.median(worked[1:]):.2f} s"
    return Result(100 * share, note=note)


class SlotOrder(list):
    """A dataset from which the loader's slots take samples by their window."""

    def __getitem__(self, slot):
        return slot, super().__getitem__(slot.sample)[1], None


def step(task, loss_of, update=True):
    """One optimizer step; the loss it saw."""
    task.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()
    if update:
        if not hasattr(task, "optimizer"):
            task.optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-4)
        task.optimizer.step()
    return loss.detach()
