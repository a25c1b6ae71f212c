"""Compare this code with numbers computed by another project's own code.

python benchmarks/vectors.py PROJECT DIR    DIR laid out like tests/fixtures/PROJECT, see its README

openonerec     Parquet, chat template, token store, packs, schedule
minionerec     its files as tables, samples of its views, their tokens and labels, what decoding allows;
               rewards, advantages, policy losses and their gradients
onerec_think   its files as tables and as those of its own step, conversations of types A to E

Everything runs through the public path. Prints every quantity with its largest difference, and exits with 1
when one is beyond its tolerance. Where the original is wrong, ours is held to what is right, as the README of
its directory says.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("DS_ACCELERATOR", "cpu")

from benchmarks import minionerec, onerec_think, openonerec  # noqa: E402
from pixelrec_train.errors import InputError  # noqa: E402

PROJECTS = {
    "openonerec": openonerec.all_checks, "minionerec": minionerec.all_checks,
    "onerec_think": onerec_think.all_checks,
}  # fmt: skip


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 2 or argv[0] not in PROJECTS:
        print(__doc__, file=sys.stderr)
        print(f"error: name one of {', '.join(PROJECTS)}, and a directory.", file=sys.stderr)
        return 2
    checks, problem = [], None
    with tempfile.TemporaryDirectory(prefix="pixelrec-vectors-") as cache_dir:
        try:
            for check in PROJECTS[argv[0]](Path(argv[1]), cache_dir):
                checks.append(check)
                verdict = "ok  " if check.holds else "FAIL"
                print(f"{verdict} {check.name:<86} {check.error:.1e}  (<= {check.tolerance:.0e})", flush=True)
        except (InputError, OSError, KeyError, json.JSONDecodeError) as error:
            problem = f"error: {argv[1]}: {type(error).__name__}: {error}"
    failed = sum(not check.holds for check in checks)
    print(f"{len(checks) - failed} of {len(checks)} quantities agree")
    if problem:
        print(problem, file=sys.stderr)
    return 1 if failed or problem or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
