"""One table of baselines and checkpoints on a dataset."""

from command import run

run(__file__, __name__)
