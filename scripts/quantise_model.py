"""A language model with its matrices in 8 or 4 bits, to serve."""

from command import run

run(__file__, __name__)
