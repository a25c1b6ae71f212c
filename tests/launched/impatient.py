"""A training that soon gives up a rank without a word: python impatient.py FLAGS… as of train_pixelrec.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pixelrec_train.commands.train_pixelrec import main  # noqa: E402
from pixelrec_train.run import watcher  # noqa: E402

watcher.LOST = 8.0
main()
