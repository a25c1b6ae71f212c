"""Give a causal LM a token for every code of the semantic ids."""

from command import run

run(__file__, __name__)
