"""The training step on a GPU: Qwen3-0.6B or 1.7B shaped towers (random weights, real lengths), one device.

python benchmarks/gpu.py                        # 0.6B, bf16: ours against the peers' ways, then batch sizes
python benchmarks/gpu.py --shape 1.7b --windows 8
python benchmarks/gpu.py --shape tiny           # runs on a CPU too; its figures mean nothing

MFU is model FLOPs on real tokens over the measured bf16 matrix product of this device; recomputing does not
count as work. Every way starts from the same weights and must give the same loss within bf16.
"""

import argparse
import copy
import gc
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from transformers import AutoModel, AutoModelForCausalLM, Qwen3Config  # noqa: E402

from benchmarks import inputs, measure, peers  # noqa: E402
from benchmarks.batches import collator_and_samples, occurrences, two_tower  # noqa: E402
from benchmarks.inputs import LONGEST_TEXT, VOCAB_SIZE  # noqa: E402
from benchmarks.step import model_flops  # noqa: E402
from pixelrec_train import distributed  # noqa: E402

SHAPES = {  # hidden, MLP, layers, heads, key-value heads, head size: Qwen3's own
    "tiny": (64, 192, 2, 2, 1, 32),
    "0.6b": (1024, 3072, 28, 16, 8, 128),
    "1.7b": (2048, 6144, 28, 16, 8, 128),
}
ROW = "{:<44} {:>9} {:>11} {:>7} {:>9}  {}"


def main(argv=None):
    options = parse(argv)
    device, given = distributed.device(), inputs.shipped()
    ceiling = gemm_tflops(device, 8192 if device.type == "cuda" else measure.TINY_GEMM)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}; {measure.machine()}; GEMM {ceiling:.3g} TFLOP/s; {options.shape} shape")
    print(ROW.format(f"one step of {options.windows} windows", "ms", "tokens/s", "MFU", "peak GB", ""))
    losses = {}
    for label, build in ways(options.shape, given, options.windows, device).items():
        losses[label] = show(label, build, ceiling, options.steps, device)
    known = [loss for loss in losses.values() if loss is not None]
    if max(known) - min(known) > 0.02 * max(known):
        sys.exit(f"error: the ways disagree: {losses}")
    print(ROW.format("ours, by windows and what is recomputed", "ms", "tokens/s", "MFU", "peak GB", ""))
    recomputed = {"nothing": {}, "layers": {"layers": True}, "chunks": {"chunk_tokens": 8192}}
    for windows in options.sweep:
        for label, settings in recomputed.items():
            build = ours(options.shape, given, windows, device, **settings)
            show(f"{windows} windows, {label}", build, ceiling, options.steps, device)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--windows", type=int, default=16, help="of the comparison with the peers' ways")
    parser.add_argument("--sweep", type=int, nargs="*", default=[16, 64, 256], help="windows of batch sizes")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each; the median counts")
    return parser.parse_args(argv)


def ways(shape, given, windows, device):
    """{label: () -> (task for FLOPs, batch, a function that computes the loss, real tokens)}."""
    collator, samples = collator_and_samples(given, windows)
    places = occurrences(collator, samples)

    def hllm():
        task = towers(shape, device, whole_last_layer=True)
        items, valid = places[0].to(device), places[1].to(device)
        return task, collator(samples).to(device), lambda: peers.hllm_loss(task, items, valid)

    def padded(peer_class):
        def build():
            task, batch = towers(shape, device), collator(samples).to(device)
            peer = peer_class.from_config(copy.deepcopy(qwen3(shape)), attn_implementation="sdpa")
            peer = peer.to(device, precision(device))
            encode = task.model.item_llm
            peer.base_model.load_state_dict(encode.backbone.state_dict())
            encode.backbone, encode.peer = peer.base_model, peer  # trained in the place of ours
            encode.read = lambda texts, token: peers.padded(peer, token, texts, LONGEST_TEXT + 1)
            return task, batch, lambda: task(batch)[0]

        return build

    return {
        "ours": ours(shape, given, windows, device),
        "HLLM: every place encoded, no head": hllm,
        "distinct items padded to 257, no head": padded(AutoModel),
        "distinct items padded to 257, with LM head": padded(AutoModelForCausalLM),
    }


def ours(shape, given, windows, device, layers=False, chunk_tokens=None):
    """layers: recompute layer by layer; chunk_tokens: recompute by chunks of so many tokens."""

    def build():
        collator, samples = collator_and_samples(given, windows)
        collator.chunks = (0, chunk_tokens)
        task, batch = towers(shape, device), collator(samples).to(device)
        if layers or chunk_tokens:
            task.model.enable_checkpointing()
            task.model.item_llm.layers_of_chunks = layers
        return task, batch, lambda: task(batch)[0]

    return build


def show(label, build, ceiling, steps, device):
    """Print one line; the loss of the first step, or None where memory ran out."""
    try:
        task, batch, loss_of = build()
        task.train()
        first, milliseconds, peak = timed(task, loss_of, steps, device)
    except torch.OutOfMemoryError:
        print(ROW.format(label, "", "", "", "", "out of memory"), flush=True)
        return None
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    rate = model_flops(task, batch) / milliseconds / 1e9  # TFLOP/s
    tokens = batch.num_tokens / milliseconds * 1000
    figures = (f"{milliseconds:.0f}", f"{tokens:,.0f}", f"{rate / ceiling:.1%}", f"{peak:.1f}")
    print(
        ROW.format(label, *figures, f"{batch.num_tokens:,} tokens of {batch.num_items:,} items"), flush=True
    )
    return first


def timed(task, loss_of, steps, device):
    """Loss of the first step, median milliseconds of forward, backward and AdamW, peak GB."""
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-5)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first, seen = None, []
    for _ in range(steps + 2):  # two to warm up
        wait_for(device)
        started = time.perf_counter()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait_for(device)
        seen.append(time.perf_counter() - started)
        first = float(loss.detach()) if first is None else first
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else measure.memory_gb("VmHWM")
    return first, 1000 * median(seen[2:]), peak


def towers(shape, device, whole_last_layer=False):
    return two_tower(qwen3(shape), whole_last_layer, precision(device)).to(device)


def precision(device):
    """bf16; on a CPU, some of which take 20 times as long for that, fp32."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def qwen3(shape):
    hidden, mlp, layers, heads, kv_heads, head_dim = SHAPES[shape]
    vocabulary = VOCAB_SIZE if shape == "tiny" else 151_936
    return Qwen3Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
        max_position_embeddings=2048, tie_word_embeddings=False,
    )  # fmt: skip


def gemm_tflops(device, size):
    matrix = torch.randn(size, size, device=device, dtype=precision(device))
    for _ in range(3):
        torch.mm(matrix, matrix)
    wait_for(device)
    started = time.perf_counter()
    for _ in range(20):
        torch.mm(matrix, matrix)
    wait_for(device)
    return 20 * 2 * size**3 / (time.perf_counter() - started) / 1e12


def wait_for(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
