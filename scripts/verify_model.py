"""Check a model directory with itemic tokens; status 1 where something is wrong."""

from command import run

run(__file__, __name__)
