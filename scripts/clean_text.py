"""Rows of text files that are worth training on: lengths, duplicates, near duplicates."""

from command import run

run(__file__, __name__)
