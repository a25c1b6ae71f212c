"""What a benchmark is: a function that measures one figure, and the goal the figure has to reach.

A new one is one decorated function in any file that run.py names in FILES:

    @benchmark(unit="CPU s", goal=Goal("ratio", at_least=5), tiny={"items": 4})
    def item_tower_vs_dense_head(inputs, items=44):
        ...
        return Result.of_times(ours, theirs)

Its name is its name on the command line; `inputs` are benchmarks/inputs.py's.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    figure: str  # of the Result: "ratio" or "value"
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, result):
        figure = getattr(result, self.figure)
        if self.at_least is not None:
            return figure >= self.at_least
        return figure <= self.at_most

    def limit(self):
        """{"at_least": 5} or {"at_most": 300}."""
        return {k: v for k in ("at_least", "at_most") if (v := getattr(self, k)) is not None}


@dataclass(frozen=True)
class Result:
    """What a benchmark found; the peer's side is None where there is no peer to compare with."""

    value: float  # in the benchmark's unit
    baseline: float | None = None  # the same of the peer's way
    ratio: float | None = None  # how many times better than the peer's way
    wall: float | None = None  # seconds, where the unit is not wall time itself
    baseline_wall: float | None = None
    note: str = ""  # what was compared, in a few words

    @staticmethod
    def of_times(ours, theirs, note=""):
        """From two measure.Timing: CPU seconds, their ratio, wall besides."""
        return Result(ours.cpu, theirs.cpu, theirs.cpu / ours.cpu, ours.wall, theirs.wall, note)


@dataclass(frozen=True)
class Benchmark:
    function: Callable  # (inputs, **sizes) -> Result
    unit: str
    goal: Goal
    tiny: dict | None  # sizes with which it takes a second or so; None = it cannot

    def as_json(self, result):
        """The promised keys of --json."""
        passed = bool(self.goal.is_met(result))
        return vars(result) | {"unit": self.unit, "judged": self.goal.figure} | self.goal.limit() | {
            "passed": passed
        }  # fmt: skip


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(unit, goal, tiny):
    """Decorator: makes the function known to run.py under its own name. See Benchmark for the arguments."""

    def register(function):
        BENCHMARKS[function.__name__] = Benchmark(function, unit, goal, tiny)
        return function

    return register
