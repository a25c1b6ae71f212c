"""What the scripts beside this file do: python -m pixelrec_train NAME, from anywhere, under any launcher."""

import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 (whoever runs this may have any)
    sys.exit(f"PROBLEM  python       {sys.version.split()[0]}, but 3.10 or newer is needed")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # launchers add the script's own folder alone

from pixelrec_train.__main__ import main  # noqa: E402


def run(script, name):
    """name: the script's __name__. A spawned worker reads the script as well, and must not start it again."""
    if name == "__main__":
        main([Path(script).stem, *sys.argv[1:]])
