"""Items for one history, with their texts and why, from a checkpoint."""

from command import run

run(__file__, __name__)
