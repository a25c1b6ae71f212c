"""From a matrix of embeddings to semantic ids, report card and codebooks: the whole command."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT, cores
from benchmarks.registry import Goal, Result, benchmark

GOAL = Goal("value", at_most=30)
CLUSTERS = 2_000  # look-alikes, so that many items share their codes at first


@benchmark(unit="wall s", goal=GOAL, tiny={"items": 300, "codebook": 16})
def semantic_ids(inputs, **sizes):
    """RQ-KMeans."""
    return build("rq_kmeans", **sizes)


@benchmark(unit="wall s", goal=GOAL, tiny=None)
def semantic_ids_balanced(inputs, **sizes):
    """RQ-KMeans with codes of equal size."""
    return build("rq_kmeans_balanced", **sizes)


def build(quantiser, items=100_000, width=128, levels=3, codebook=256):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, width))
    table = centres[rng.integers(CLUSTERS, size=items)] + 0.7 * rng.normal(size=(items, width))
    with tempfile.TemporaryDirectory(prefix="pixelrec-benchmark-") as folder:
        np.save(f"{folder}/matrix.npy", table.astype(np.float32))
        Path(folder, "ids.txt").write_text("".join(f"i{n}\n" for n in range(items)), encoding="utf-8")
        command = [
            sys.executable, "scripts/build_semantic_ids.py", "--quantiser", quantiser,
            "--matrix", f"{folder}/matrix.npy", "--matrix_ids", f"{folder}/ids.txt",
            "--levels", str(levels), "--codebook_size", str(codebook),
            "--output_dir", f"{folder}/ids", "--logging_dir", f"{folder}/logs",
        ]  # fmt: skip
        started = time.monotonic()
        threads = {"OMP_NUM_THREADS": str(cores())}
        subprocess.run(command, cwd=ROOT, env=os.environ | threads, check=True, capture_output=True)
        seconds = time.monotonic() - started
        card = json.loads(Path(folder, "ids/report_card.json").read_text(encoding="utf-8"))
    facts = card["facts"]
    note = (
        f"{items:,} x {width}, {levels} x {codebook}; {facts['collision_rate_before']:.1%} collided, "
        f"{facts['moved']:,} moved, {facts['fell_through']:,} still share"
    )
    return Result(seconds, note=note)
