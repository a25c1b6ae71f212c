"""Is this machine ready to train? Status 1 where a run would fail."""

from command import run

run(__file__, __name__)
