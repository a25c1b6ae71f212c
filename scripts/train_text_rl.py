"""Reinforcement learning of a language model on prompts, by rewards for its answers (docs/rl.md)."""

from command import run

run(__file__, __name__)
