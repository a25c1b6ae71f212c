"""Train a language model with itemic tokens (recipe: run_train_generative.sh)."""

from command import run

run(__file__, __name__)
