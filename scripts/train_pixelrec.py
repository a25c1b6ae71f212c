"""Train a two-tower HLLM (recipe: run_train_pixelrec.sh); --dry_run 8 plans only."""

from command import run

run(__file__, __name__)
