"""Reinforcement learning with recommendation rewards and a value head (docs/rl.md)."""

from command import run

run(__file__, __name__)
