"""Write the language model of a checkpoint as a Hugging Face directory, in half precision."""

from command import run

run(__file__, __name__)
