"""Give every item a semantic id, or read and write those of other projects."""

from command import run

run(__file__, __name__)
