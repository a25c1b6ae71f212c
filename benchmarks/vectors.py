"""Compare this code with numbers computed by another project's own code.

python benchmarks/vectors.py openonerec DIR    DIR laid out like tests/fixtures/openonerec, see its README

Everything runs through the public path: Parquet, chat template, token store, packs, schedule. Prints every
quantity with its largest difference, and exits with 1 when one is beyond its tolerance.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("DS_ACCELERATOR", "cpu")

from benchmarks import openonerec  # noqa: E402
from pixelrec_train.errors import InputError  # noqa: E402

PROJECTS = {"openonerec": openonerec.all_checks}


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
