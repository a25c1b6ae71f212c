"""Make the synthetic dataset and tiny models of the first run."""

from command import run

run(__file__, __name__)
