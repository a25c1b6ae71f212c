"""Embed a catalogue once, for every command: embed_items.py --checkpoint …"""

from command import run

run(__file__, __name__)
