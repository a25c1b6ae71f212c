"""Every stage on one GPU: Qwen3-0.6B or 1.7B shaped models (random weights, real lengths), in 8 minutes.

python benchmarks/gpu.py                        # 0.6B, bf16; ends with the rows for RESULTS.md
python benchmarks/gpu.py --parts decoding ranking
python benchmarks/gpu.py --shape tiny           # runs on a CPU too; its figures mean nothing

torch and transformers are enough; FAISS is measured where it is installed. Each part is a process of its own
with seconds of its own: one that fails or takes too long loses nothing of the others; the script ends
with what it said, and exit status 1. MFU is model FLOPs on real tokens over the measured bf16 product of
this device; recomputing does not count as work. Ways that are compared start from the same weights and must
give the same.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bare import without_tables  # noqa: E402

without_tables()

from benchmarks import gpu_ranking, gpu_step  # noqa: E402
from benchmarks.gpu_measure import SHAPES, about  # noqa: E402

PARTS = {  # name: (what measures it, seconds that it may take)
    "step": (gpu_step.against_peers, 110),
    "towers": (gpu_step.each_tower, 60),
    "kernel": (gpu_step.kernel, 50),
    "sizes": (gpu_step.sizes, 80),
    "decoding": (gpu_ranking.decoding, 90),
    "ranking": (gpu_ranking.ranking, 90),
}
ROW_MARK = "| `"
HEAD = "| name | ours | peer's | unit | ratio | goal | what |\n|---|---:|---:|---|---:|---|---|"


def main(argv=None):
    options = parse(argv)
    if options.part:
        return PARTS[options.part][0](options)
    print(about(options.shape), flush=True)
    rows, failures = [], {}
    for name in options.parts:
        lines, why = run(name, options)
        rows += [line for line in lines if line.startswith(ROW_MARK)]
        if why:
            failures[name] = f"{name}: {why}\n" + "\n".join(lines[-30:])
    print("\n".join(["", "for RESULTS.md:", HEAD, *rows]))
    if failures:
        print("\n".join(["", *failures.values()]))
        sys.exit(f"error: {len(failures)} of {len(options.parts)} parts failed: {', '.join(failures)}.")


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--windows", type=int, default=16, help="of the comparison with the peers' ways")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256], help="windows of batch sizes")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each; the median counts")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # in here and now
    return parser.parse_args(argv)


def run(name, options):
    """A part in a process of its own: its lines, printed as they come, and why it failed or None."""
    print(f"\n{name}", flush=True)
    command = [sys.executable, __file__, "--part", name, "--shape", options.shape]
    command += ["--windows", str(options.windows), "--steps", str(options.steps)]
    command += ["--sizes", *map(str, options.sizes)]
    lines, seconds, started = [], PARTS[name][1], time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watch = threading.Timer(seconds, process.kill)
        watch.start()
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            print(lines[-1], flush=True)
        status = process.wait()
        watch.cancel()
    if status and time.monotonic() - started >= seconds:
        return lines, f"took more than its {seconds} s; what it printed before stands"
    return lines, f"ended with {status}" if status else None


if __name__ == "__main__":
    main()
