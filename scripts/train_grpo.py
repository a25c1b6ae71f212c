"""Reinforcement learning with recommendation rewards: groups of answers compared, GRPO (docs/rl.md)."""

from command import run

run(__file__, __name__)
