"""The page of a run, report.html, made again from the files in its directory."""

from command import run

run(__file__, __name__)
