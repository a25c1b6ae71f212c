"""Checkpoints behind HTTP: an API, and a page that shows what each of them recommends for a history."""

from command import run

run(__file__, __name__)
