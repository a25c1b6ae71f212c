"""The training step on a GPU: against the peers' ways, each tower alone, by attention, by batch size."""

import copy
import functools
from unittest.mock import patch

import torch
from transformers import AutoModel, AutoModelForCausalLM

from benchmarks import inputs, peers
from benchmarks.batches import collator_and_samples, occurrences
from benchmarks.gpu_measure import (
    free,
    gemm_tflops,
    head,
    line,
    on_gpu,
    precision,
    qwen3,
    row,
    timed,
    towers,
)
from benchmarks.inputs import LONGEST_TEXT
from benchmarks.step import model_flops
from pixelrec_train import distributed
from pixelrec_train.model import packed_attention

SENTENCE = "forward and backward pass, AdamW"
CHUNK_TOKENS = 8192


def against_peers(options):
    """Every way from the same weights; the first loss of each must be the same within 2 %."""
    ceiling, losses, times = gemm_tflops(), {}, {}
    head(f"one step of {options.windows} windows ({ceiling:.3g} TFLOP/s)")
    for label, build in ways(options).items():
        task, batch, loss_of = build()
        try:
            losses[label], times[label], peak = step(task, loss_of, options.steps)
        except torch.OutOfMemoryError:
            print(f"{label}: out of memory", flush=True)
            continue
        finally:
            share = model_flops(task, batch) / ceiling / 1e9
            build = task.model = loss_of = None  # with the towers, for the next way
            free()
        share /= times[label]
        tokens = f"{batch.num_tokens:,} tokens of {batch.num_items:,} items"
        line(label, times[label], batch.num_tokens / times[label] * 1000, share, peak, tokens)
        if label == "ours":
            what = f"{SENTENCE}, {options.windows} windows, {tokens}, {peak:.1f} GB"
            row("gpu_mfu_step", share, None, "of GEMM", "value ≥ 0.45", what)
    if max(losses.values()) - min(losses.values()) > 0.02 * max(losses.values()):
        raise AssertionError(f"the ways disagree: {losses}")
    for name, label in PEERS.items():
        if label in times:
            row(name, times["ours"], times[label], "ms", "ratio ≥ 1", f"{label}; {SENTENCE}")


PEERS = {
    "gpu_step_vs_hllm": "HLLM: every place encoded, no head",
    "gpu_step_vs_padded": "distinct items padded to 257, no head",
    "gpu_step_vs_padded_head": "distinct items padded to 257, with LM head",
}


def ways(options):
    """{label: () -> (task for FLOPs, batch, a function that computes the loss)}"""
    collator, samples = drawn(options.windows)
    places, device = occurrences(collator, samples), distributed.device()

    def ours():
        task, batch = towers(options.shape), collator(samples).to(device)
        return task, batch, lambda: task(batch)[0]

    def hllm():
        task = towers(options.shape, as_theirs=True)
        items, valid = (x.to(device) for x in places)
        return task, collator(samples).to(device), lambda: peers.hllm_loss(task, items, valid)

    def padded(peer_class):
        def build():
            task, batch, loss_of = ours()
            with torch.device(device):
                peer = peer_class.from_config(copy.deepcopy(qwen3(options.shape)), attn_implementation="sdpa",
                                              dtype=precision())  # fmt: skip
            encode = task.model.item_llm
            peer.base_model.load_state_dict(encode.backbone.state_dict())
            encode.backbone, encode.peer = peer.base_model, peer  # trained in the place of ours
            encode.read = lambda texts, token: peers.padded(peer, token, texts, LONGEST_TEXT + 1)
            return task, batch, loss_of

        return build

    return dict(
        zip(("ours", *PEERS.values()), (ours, hllm, padded(AutoModel), padded(AutoModelForCausalLM)),
            strict=True)
    )  # fmt: skip


def step(task, loss_of, steps):
    """Loss of the first step, median milliseconds, peak GB."""
    task.train()
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def once():
        loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    first, milliseconds, peak = timed(once, steps)
    return float(first), milliseconds, peak


def each_tower(options):
    """Forward and backward pass of the item LLM on a batch's texts, of the user LLM on histories."""
    ceiling, device = gemm_tflops(), distributed.device()
    task, batch = towers(options.shape).train(), collated(options.windows)
    model, width = task.model, task.model.user_llm.backbone.config.hidden_size
    users = torch.randn(16 * options.windows, 10, width, device=device, dtype=precision())
    parts = {
        "item": (lambda: model.item_llm(batch.items.texts), batch.num_tokens),
        "user": (lambda: model.user_llm(users), users[..., 0].numel()),
    }
    head(f"a tower alone, forward and backward ({ceiling:.3g} TFLOP/s)")
    for name, (encode, tokens) in parts.items():
        _, milliseconds, peak = timed(lambda encode=encode: encode().float().square().mean().backward(),
                                      options.steps)  # fmt: skip
        share = tower_flops(task, batch, name, tokens) / milliseconds / 1e9 / ceiling
        line(f"{name} LLM", milliseconds, tokens / milliseconds * 1000, share, peak, f"{tokens:,} tokens")
        row(f"gpu_mfu_{name}_tower", share, None, "of GEMM", "value ≥ 0.45", f"{tokens:,} tokens")
        model.zero_grad(set_to_none=True)


def tower_flops(task, batch, name, tokens):
    """Of a tower alone, counted as step.model_flops does."""
    if name == "user":
        layers = (p for n, p in task.model.user_llm.backbone.named_parameters() if "embed_tokens" not in n)
        return 6 * tokens * sum(p.numel() for p in layers)
    user = tower_flops(task, batch, "user", batch.history.numel())
    width = task.model.user_llm.backbone.config.hidden_size
    return model_flops(task, batch) - user - 6 * batch.history.numel() * len(batch.negatives) * width


def kernel(options):
    """The item LLM with torch's variable-length kernel, and with the same texts gathered into buckets."""
    model = towers(options.shape).model.item_llm.train()
    batch = collated(options.windows)

    def once():
        found = model(batch.items.texts)
        found.float().square().mean().backward()
        model.zero_grad(set_to_none=True)
        return found.detach().float()

    head("item LLM, forward and backward, by attention")
    found, times = {}, {}
    for label, of_rows in (("variable length", True), ("buckets", False)):
        if of_rows and not on_gpu():
            print("variable length: it wants a GPU", flush=True)
            continue
        with patch.object(packed_attention, "fits_variable_length_kernel", fits if of_rows else never):
            found[label], times[label], peak = timed(once, options.steps)
        line(label, times[label], batch.num_tokens / times[label] * 1000, None, peak)
    if len(found) == 2:
        cosine = torch.cosine_similarity(*found.values()).min()
        if not cosine > 0.99:
            raise AssertionError(f"the kernels disagree: an embedding's cosine is {float(cosine):.3f}")
        what = f"varlen against buckets of 4 lengths; {batch.num_tokens:,} tokens"
        row("gpu_varlen", times["variable length"], times["buckets"], "ms", "ratio ≥ 1", what)


fits = packed_attention.fits_variable_length_kernel


def never(*arguments):
    return False


def sizes(options):
    """Ours by windows and by what is recomputed, in the same towers."""
    ceiling, task = gemm_tflops(), towers(options.shape)
    head("ours, by windows and what is recomputed")
    for windows in options.sizes:
        for label in ("nothing", "layers", "chunks"):
            recompute(task.model, layers=label == "layers")
            batch = collated(windows, CHUNK_TOKENS if label == "chunks" else None)
            try:
                _, milliseconds, peak = step(task, lambda batch=batch: task(batch)[0], options.steps)
            except torch.OutOfMemoryError:
                print(f"{windows} windows, {label}: out of memory", flush=True)
                continue
            finally:
                task.zero_grad(set_to_none=True)
                free()
            share = model_flops(task, batch) / milliseconds / 1e9 / ceiling
            note = f"{batch.num_tokens:,} tokens of {batch.num_items:,} items"
            tokens = batch.num_tokens / milliseconds * 1000
            line(f"{windows} windows, {label}", milliseconds, tokens, share, peak, note)
            what = f"{windows} windows, recomputed: {label}; MFU {share:.1%}, {peak:.1f} GB"
            row(f"gpu_step_{windows}_{label}", windows / milliseconds * 1000, None, "windows/s", "", what)


def recompute(model, layers):
    if layers:
        model.enable_checkpointing()
        return
    for tower in (model.item_llm, model.user_llm):
        tower.backbone.gradient_checkpointing_disable()


def collated(windows, chunk_tokens=None):
    collator, samples = drawn(windows)
    collator.chunks = (0, chunk_tokens)
    return collator(samples).to(distributed.device())


@functools.cache
def drawn(windows):
    """Our collator, and the samples of a micro-batch."""
    return collator_and_samples(inputs.shipped(), windows)
