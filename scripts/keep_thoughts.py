"""Samples for a second epoch, with thoughts where a model could use them: keep_thoughts.py --samples …"""

from command import run

run(__file__, __name__)
