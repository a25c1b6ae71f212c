"""Which figures of docs/results.md does this commit reproduce? Runs their commands, prints both.

python benchmarks/figures.py                  lists what there is, and its minutes
python benchmarks/figures.py demo demo_1      runs these; all = everything
    --data DIR        dataset/, information/, split/ of amazon_scientific and amazon_industrial, if asked for
    --minilm DIR      all-MiniLM-L6-v2, likewise
    --output_dir DIR  where runs go

The same machine prints the same digits; another may round differently: "close" is within half the interval.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = Path(__file__).with_suffix(".json")
RAW = argparse.RawDescriptionHelpFormatter


def known():
    return {entry["name"]: entry for entry in json.loads(FIGURES.read_text(encoding="utf-8"))}


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    for name in ("data", "minilm"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("results/figures"))
    asked, entries = parser.parse_args(argv), known()
    names = list(entries) if asked.names == ["all"] else asked.names
    if unknown := [name for name in names if name not in entries]:
        sys.exit(f"error: no figures are called {unknown[0]}. There are: {', '.join(entries)}.")
    for name, entry in entries.items() if not names else ():
        print(f"{name:<24} {entry['minutes']:>4} min   {shown(entry)}")
    for name in names:
        for option in ("data", "minilm"):
            if f"{{{option}}}" in json.dumps(entries[name]) and not getattr(asked, option):
                sys.exit(f"error: {name} needs --{option}.")
    differing = [name for name in names if not reproduced(entries[name], asked)]
    if differing:
        sys.exit(f"not reproduced: {', '.join(differing)}")


def shown(entry):
    return " ".join([*(f"{key}={value}" for key, value in entry["set"].items()), entry["command"]])


def reproduced(entry, asked):
    """Run the command and print its figures beside those of the docs, in percent; whether all are close."""
    home = (asked.output_dir / entry["name"]).resolve()
    places = {"data": asked.data, "minilm": asked.minilm}
    environment = {key: value.format(**places) for key, value in entry["set"].items()}
    environment |= {"OUTPUT_DIR": str(home), "LOGGING_DIR": f"{home}_logs"}
    start = time.monotonic()
    result = subprocess.run(entry["command"].split(), cwd=ROOT, env=os.environ | environment)
    minutes = (time.monotonic() - start) / 60
    if result.returncode:
        print(f"{entry['name']}: the command ended with status {result.returncode}")
        return False
    table, fine = json.loads((home / entry["table"]).read_text(encoding="utf-8")), True
    print(f"\n{entry['name']}: {shown(entry)}, {minutes:.1f} min\n")
    print("| row | figure | docs | here | |\n|---|---|---:|---:|---|")
    for row, figures in entry["rows"].items():
        for figure, told in figures.items():
            found = 100 * table[row][figure]
            half = 100 * half_interval(table[row], figure)
            close = "close" if abs(found - told) <= half else "DIFFERS"
            word = "the same" if f"{found:.2f}" == f"{told:.2f}" else close
            fine &= word != "DIFFERS"
            print(f"| {row} | {figure} | {told:.2f} | {found:.2f} | {word} |")
    return fine


def half_interval(row, figure):
    low, high = row.get(f"{figure}_ci95", (0, 0))
    return (high - low) / 2


if __name__ == "__main__":
    main()
