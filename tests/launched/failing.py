"""A training in which rank 1 fails in its third step: python failing.py FLAGS… as of train_pixelrec.py"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pixelrec_train import distributed  # noqa: E402
from pixelrec_train.commands.train_pixelrec import main  # noqa: E402
from pixelrec_train.tasks.two_tower import TwoTowerTask  # noqa: E402

forward, calls = TwoTowerTask.forward, itertools.count(1)


def failing(self, batch):
    if next(calls) == 3 and distributed.rank() == 1:
        raise ZeroDivisionError("planted on rank 1")
    return forward(self, batch)


TwoTowerTask.forward = failing
main()
