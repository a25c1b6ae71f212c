"""Pairs of a better and a worse item for scripts/train_dpo.py, from interactions (docs/rl.md)."""

from command import run

run(__file__, __name__)
