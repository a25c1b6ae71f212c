"""A quantity of ours beside another project's, for benchmarks/vectors.py."""

from collections import Counter
from typing import NamedTuple


class Check(NamedTuple):
    name: str
    error: float  # largest, over all entries; inf where there are more of one than of the other
    tolerance: float = 0.0

    @property
    def holds(self):
        return self.error <= self.tolerance


def difference(ours, theirs):
    """The largest, over all entries; of words 1 where any differs; inf where there are more of one."""
    ours, theirs = list(ours), list(theirs)
    if len(ours) != len(theirs):
        return float("inf")
    if any(isinstance(value, str) for value in ours + theirs):
        return float(ours != theirs)
    return max((abs(float(a) - float(b)) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def apart(ours, theirs):
    """How many of either are not among the others, each as often as it stands there; in any order."""
    ours, theirs = Counter(ours), Counter(theirs)
    return float((ours - theirs).total() + (theirs - ours).total())
