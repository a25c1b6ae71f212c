"""Public data sets in their makers' own layouts as our two tables."""

from command import run

run(__file__, __name__)
