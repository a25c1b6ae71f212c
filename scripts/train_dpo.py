"""Train a language model on pairs of answers, the better and the worse (docs/rl.md)."""

from command import run

run(__file__, __name__)
