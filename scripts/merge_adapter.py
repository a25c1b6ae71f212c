"""Add an adapter (LoRA, in peft's format) to the language model that it was trained upon."""

from command import run

run(__file__, __name__)
