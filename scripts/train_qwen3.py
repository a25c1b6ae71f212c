"""Train a language model on samples in OpenOneRec's format (recipes: openonerec/)."""

from command import run

run(__file__, __name__)
