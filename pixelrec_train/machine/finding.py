"""One line of the doctor."""

from typing import NamedTuple

OK, WARN, PROBLEM = "ok", "warn", "PROBLEM"


class Finding(NamedTuple):
    verdict: str
    item: str
    found: str
    advice: str = ""  # what to do, where it is not ok

    def __str__(self):
        return f"{self.verdict:<9}{self.item:<13}{self.found}{'. ' if self.advice else ''}{self.advice}"


def gib(count):
    """Bytes as a person reads them."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
