"""Ranked items for every user of a split, as Parquet and JSON lines: predict.py --model_dir …"""

from command import run

run(__file__, __name__)
