"""Talk with a language model in the terminal, or ask it once."""

from command import run

run(__file__, __name__)
