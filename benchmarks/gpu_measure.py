"""What the parts of benchmarks/gpu.py share: shapes, towers on the device, time, peak memory, rows."""

import gc
import time
from statistics import median

import torch
from transformers import Qwen3Config

from benchmarks import measure
from benchmarks.batches import two_tower
from benchmarks.inputs import VOCAB_SIZE
from pixelrec_train import distributed
from pixelrec_train.model.user_encoder import NAME as CAUSAL

SHAPES = {  # hidden, MLP, layers, heads, key-value heads, head size: Qwen3's own
    "tiny": (64, 192, 2, 2, 1, 32),
    "0.6b": (1024, 3072, 28, 16, 8, 128),
    "1.7b": (2048, 6144, 28, 16, 8, 128),
}
LINE = "{:<44} {:>9} {:>11} {:>7} {:>9}  {}"


def about(shape):
    return f"{device_name()}; {measure.machine()}; {shape} shape"


def device_name():
    return torch.cuda.get_device_name() if on_gpu() else "CPU"


def on_gpu():
    return distributed.device().type == "cuda"


def head(what):
    print(LINE.format(what, "ms", "per s", "MFU", "peak GB", ""), flush=True)


def line(label, milliseconds, per_second, share, peak, note=""):
    figures = f"{milliseconds:.1f}", f"{per_second:,.0f}", "" if share is None else f"{share:.1%}"
    print(LINE.format(label, *figures, f"{peak:.1f}", note), flush=True)


def row(name, ours, theirs, unit, goal, what):
    """For RESULTS.md; theirs: None = there is no peer. The ratio is theirs by ours, of times."""
    ratio = "" if theirs is None else f"{theirs / ours:.2f}x"
    theirs = "" if theirs is None else f"{theirs:.3g}"
    print(f"| `{name}` | {ours:.3g} | {theirs} | {unit} | {ratio} | {goal} | {device_name()}: {what} |",
          flush=True)  # fmt: skip


def timed(way, steps, warm_up=2):
    """What the first call gave, median milliseconds of a call, peak GB; a call ends when the device has.

    warm_up: calls before, on a GPU; nobody reads the times of a CPU.
    """
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
    else:
        warm_up = 0
    first, seen = None, []
    for number in range(steps + warm_up):
        wait()
        started = time.perf_counter()
        found = way()
        wait()
        seen.append(time.perf_counter() - started)
        first = found if number == 0 else first
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu() else measure.memory_gb("VmHWM")
    return first, 1000 * median(seen[warm_up:]), peak


def wait():
    if on_gpu():
        torch.cuda.synchronize()


def free():
    gc.collect()
    if on_gpu():
        torch.cuda.empty_cache()


def gemm_tflops():
    """Of a square product in the precision that is trained in."""
    size = 8192 if on_gpu() else measure.TINY_GEMM
    matrix = torch.randn(size, size, device=distributed.device(), dtype=precision())

    def products():
        for _ in range(20):
            torch.mm(matrix, matrix)

    return 20 * 2 * size**3 / timed(products, 3)[1] / 1e9


def towers(shape, as_theirs=False):
    """TwoTowerTask on the device, the same weights each time; drawn there, as a CPU takes a minute for it."""
    task = two_tower(qwen3(shape), as_theirs, precision(), distributed.device())
    item, user = task.model.item_llm, task.model.user_llm.backbone.config._attn_implementation
    if not item.packed or user != CAUSAL:
        raise AssertionError(f"not what trains: item LLM {item.way}, attention of the user LLM {user}")
    return task


def precision():
    """bf16; on a CPU, some of which take 20 times as long for that, fp32."""
    return torch.bfloat16 if on_gpu() else torch.float32


def qwen3(shape, vocabulary=None):
    hidden, mlp, layers, heads, kv_heads, head_dim = SHAPES[shape]
    return Qwen3Config(
        vocab_size=vocabulary or (VOCAB_SIZE if shape == "tiny" else 151_936), hidden_size=hidden,
        intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=2048,
        tie_word_embeddings=vocabulary is not None, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
