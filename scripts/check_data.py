"""What training would see of a dataset, and what is odd about it: check_data.py NAME."""

from command import run

run(__file__, __name__)
