"""How fast, how frugal, and against the peers' ways: every figure from one command. From the repository root:

python benchmarks/run.py                          # all of them
python benchmarks/run.py catalogue read_10m       # some
python benchmarks/run.py --json figures.json      # and as numbers
python benchmarks/run.py --data DIR               # lengths and popularity from the data in DIR
python benchmarks/run.py --tiny                   # seconds: do ours and the peers' ways still agree?

Before a ratio is printed, ours and the peer's way must have computed the same. In CPU s a ratio is of medians
of interleaved runs; what takes minutes (read_10m…, evaluation…, token_cache) and first_step run once, ours
first, so those in wall s mean little on a busy machine. Exits with 1 when a goal is missed, with 2 when a
name is unknown.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch  # noqa: E402

from benchmarks import inputs, measure  # noqa: E402
from benchmarks.registry import BENCHMARKS  # noqa: E402

FILES = (
    "item_tower",
    "plan",
    "step",
    "evaluation",
    "reading",
    "tokens",
    "packing",
    "samples",
    "launch",
    "decoding",
    "baselines",
    "semantic_ids",
)
COLUMNS = "{:<27} {:>9} {:>10}  {:<7} {:>7}  {:<15} {:<4} {:>15}  {}"


def main(argv=None):
    for name in FILES:
        importlib.import_module(f"benchmarks.{name}")
    options = parse(argv)
    torch.set_num_threads(1)
    given = inputs.measured(options.data) if options.data else inputs.shipped()
    ceiling = measure.gemm_ceiling(measure.TINY_GEMM if options.tiny else measure.GEMM_SIZE)
    print(measure.machine())
    print("GEMM on one thread: " + ", ".join(f"{k} {v:.0f} GFLOP/s" for k, v in ceiling.items()), flush=True)
    print(COLUMNS.format("name", "ours", "peer's", "unit", "ratio", "goal", "", "wall s", "what"))
    figures = {}
    for name in options.names:
        chosen = BENCHMARKS[name]
        result = chosen.function(given, **(chosen.tiny if options.tiny else {}))
        figures[name] = chosen.as_json(result)
        print(line(name, figures[name]), flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    missed = [name for name, row in figures.items() if not row["passed"]]
    if missed and not options.tiny:
        print(f"goals missed: {', '.join(missed)}")
        return 1
    return 0


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; none = all")
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--data", help="folder with dataset/ and information/ of amazon_scientific")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes; figures and goals mean nothing then")
    options = parser.parse_args(argv)
    known = [name for name, found in BENCHMARKS.items() if found.tiny or not options.tiny]
    unknown = [name for name in options.names if name not in known]
    if unknown:
        kind = "tiny benchmark" if options.tiny else "benchmark"
        print(f"error: there is no {kind} {unknown[0]}. There are: {', '.join(known)}.", file=sys.stderr)
        sys.exit(2)
    options.names = options.names or known
    return options


def line(name, row):
    """One row of the table; "ok" says that the goal is met."""
    sign, limit = (">=", row["at_least"]) if "at_least" in row else ("<=", row["at_most"])
    walls = " / ".join(short(row[key]) for key in ("wall", "baseline_wall") if row[key] is not None)
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}x"
    return COLUMNS.format(
        name, short(row["value"]), "" if row["baseline"] is None else short(row["baseline"]), row["unit"],
        ratio, f"{row['judged']} {sign} {limit}", "ok" if row["passed"] else "MISS", walls, row["note"],
    )  # fmt: skip


def short(figure):
    return f"{figure:.3g}" if abs(figure) < 100 else f"{figure:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
