"""Cost on paper of a run on many GPUs: arithmetic from stated rates, nothing is measured here.

python benchmarks/scaling.py            # the table of docs/scaling.md
python benchmarks/scaling.py --mfu 0.4 --tflops 312 --network_gb_s 25

Compute is 6 x weights x item tokens at the given MFU, in which recomputing activations does not count as
work. ZeRO-2 sends 2 bytes x weights twice per step (reduce-scatter, all-gather); the item table goes out in
fp32, and its gradient comes back. Inside a machine of 8 GPUs traffic runs at --nvlink_gb_s, between
machines at --network_gb_s per GPU; nothing overlaps, which is the worst case. Activations of the item
tower: "layers" with --gradient_checkpointing, one input per layer and one layer whole; "chunks" with
--item_chunk_tokens 8192, one chunk and the item table. "scores" are three copies of positions x pool and
four of the pool's vectors, in fp32.

Judging: the table of item embeddings once per machine of 8, an eighth of the vectors on each GPU; scores in
fp32 at --mfu of --fp32_tflops, for a million users, nobody given up.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from pixelrec_train.trainings.plan import NUMBERS, state_bytes  # noqa: E402

GPUS = (8, 64, 512)
WEIGHTS, WIDTH, LAYERS, MLP = 1.1e9, 2048, 22, 5632  # one tower: TinyLlama-1.1B, as in the paper
LAYER_BYTES = 2 * (10 * WIDTH + 3 * MLP)  # activations of one token in one layer, bf16
CHUNK = 8192  # --item_chunk_tokens
TOKENS = 141  # per item, [ITEM] included: amazon_scientific's texts cut at 256; Pixel's are of that kind
ZIPF = 0.9  # exponent of popularity


class Data(NamedTuple):
    name: str
    windows: int
    length: int  # items per window, target included
    negatives: int  # per window
    items: int
    users: int
    batch: int  # windows per step, all ranks


DATA = (
    # Training interactions over 11 per window; Books: the newest 56 of each user.
    Data("Pixel8M", (158_488_652 - 2 * 8_886_078) // 11, 11, 11, 407_082, 8_886_078, 512),
    Data("Pixel8M, batch 8192", (158_488_652 - 2 * 8_886_078) // 11, 11, 11, 407_082, 8_886_078, 8192),
    Data("Books, pool 28,672", 694_898, 13, 56, 686_624, 694_898, 512),  # 10.05 M interactions: 12.5 a user
)
CATALOGUES = ((1_000_000, 4096), (2_000_000, 64), (20_000_000, 256))  # items, width


def main():
    options = parse()
    print(f"{'':<22} {'GPUs':>4} {'windows':>8} {'items':>7} {'tokens':>8} {'compute':>8} {'weights':>8} "
          f"{'items':>7} {'epoch':>8} {'state':>6} {'layers':>7} {'chunks':>7} {'scores':>7}")  # fmt: skip
    print(f"{'':<22} {'':>4} {'/GPU':>8} {'/step':>7} {'/GPU':>8} {'ms':>8} {'sent ms':>8} "
          f"{'sent ms':>7} {'hours':>8} {'GB':>6} {'GB':>7} {'GB':>7} {'GB':>7}")  # fmt: skip
    for data in DATA:
        distinct = distinct_items(data)
        for gpus in GPUS:
            print(line(data, distinct, gpus, options))
    print(f"\n{'items x width':<22} {'table':>9} {'vectors':>8} {'numbers':>8} {'FAISS':>8} {'scores':>7}")
    print(f"{'GB of a ...':<22} {'machine':>9} {'GPU':>8} {'rank':>8} {'GPU':>8} {'s':>7}")
    for items, width in CATALOGUES:
        print(judging(items, width, options))


def judging(items, width, options):
    """On one machine of 8 GPUs."""
    table, flops = 4 * items * width / 1e9, 2 * items * width * 1e6
    seconds = flops / (8 * options.mfu * options.fp32_tflops * 1e12)
    return (
        f"{items:>11,} x {width:<8} {table:>9.1f} {table / 8:>8.2f} {NUMBERS * items / 8 / 1e9:>8.2f} "
        f"{table / 8:>8.2f} {seconds:>7.0f}"
    )


def line(data, distinct, gpus, options):
    tokens = distinct * TOKENS / gpus
    positions = data.batch / gpus * (data.length - 1)
    layers = tokens * (LAYERS * WIDTH * 2 + LAYER_BYTES) / 1e9
    pool = data.batch * data.negatives
    scores = 4 * pool * (3 * positions + 4 * WIDTH) / 1e9
    chunks = (min(tokens, CHUNK) * LAYERS * LAYER_BYTES + distinct * WIDTH * 8) / 1e9
    flops = 6 * WEIGHTS * (tokens + positions)
    compute = flops / (options.mfu * options.tflops * 1e12)
    wire = (options.nvlink_gb_s if gpus <= 8 else options.network_gb_s) * 1e9
    weights = 2 * 2 * 2 * WEIGHTS / wire  # two towers, 2 bytes, twice
    table = 2 * distinct * WIDTH * 4 / wire
    steps = -(-data.windows // data.batch)
    hours = steps * (compute + weights + table) / 3600
    state = state_bytes(2 * WEIGHTS, 2, 2, gpus) / 1e9
    return (f"{data.name:<22} {gpus:>4} {data.batch / gpus:>8.0f} {distinct:>7,.0f} {tokens:>8,.0f} "
            f"{1e3 * compute:>8,.0f} {1e3 * weights:>8,.0f} {1e3 * table:>7,.1f} {hours:>8,.1f} "
            f"{state:>6.1f} {layers:>7.1f} {chunks:>7.1f} {scores:>7.1f}")  # fmt: skip


def distinct_items(data):
    """Distinct items of one step of all ranks: positives by popularity, negatives uniform; drawn once."""
    rng = np.random.default_rng(0)
    popularity = np.arange(1, data.items + 1) ** -ZIPF
    positives = rng.choice(data.items, data.batch * data.length, p=popularity / popularity.sum())
    negatives = rng.integers(0, data.items, data.batch * data.negatives)
    return len(np.unique(np.concatenate([positives, negatives])))


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--mfu", type=float, default=0.35, help="share of the peak, recomputing not counted")
    parser.add_argument("--tflops", type=float, default=989, help="bf16 peak of one GPU; 989 = H100")
    parser.add_argument("--fp32_tflops", type=float, default=67, help="fp32 peak of one GPU; 67 = H100")
    parser.add_argument("--nvlink_gb_s", type=float, default=300, help="per GPU inside a machine")
    parser.add_argument("--network_gb_s", type=float, default=40, help="per GPU between machines")
    return parser.parse_args()


if __name__ == "__main__":
    main()
