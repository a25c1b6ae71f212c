"""Is this machine ready to train? From the repository root:

python scripts/doctor.py            # a line per item; exit status 1 where a run would fail
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if sys.version_info < (3, 10):  # noqa: UP036 (whoever runs this may have any)
    sys.exit(f"PROBLEM  python       {sys.version.split()[0]}, but 3.10 or newer is needed")

from pixelrec_train.commands.doctor import main  # noqa: E402 (nothing but Python's own library behind it)

if __name__ == "__main__":
    main()
