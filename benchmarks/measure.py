"""Measuring: interleaved times, time and memory of a process of its own, the machine and its GEMM ceiling.

CPU time is what is compared, because other jobs share the machine; wall time is reported besides.
"""

import functools
import os
import pickle
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from pixelrec_train.model import cpu_layers
from pixelrec_train.run.directory import commit
from pixelrec_train.run.resources import cores

ROOT = Path(__file__).resolve().parents[1]
GEMM_SIZE = 1024
TINY_GEMM = 64  # a processor without products in bf16 takes minutes for the other
CHILD = "from benchmarks.measure import answer; answer()"


@dataclass(frozen=True)
class Timing:
    cpu: float  # seconds of all threads of this process
    wall: float  # seconds


def interleaved(*ways, rounds=3):
    """Median time of each way, run in turn A B C, A B C, … so that what disturbs one disturbs all.

    The ways should have run once before, which checking that they agree does.
    """
    times = [[] for _ in ways]
    for _ in range(rounds):
        for way, seen in zip(ways, times, strict=True):
            with Meter() as meter:
                way()
            seen.append(meter)
    return [Timing(median(m.cpu for m in seen), median(m.wall for m in seen)) for seen in times]


def must_agree(what, ours, theirs, tolerance):
    """Two ways that do not compute the same must not be compared in speed.

    Raises:
        AssertionError: a value differs by more than `tolerance`.
    """
    ours, theirs = (np.asarray(x.detach() if torch.is_tensor(x) else x) for x in (ours, theirs))
    difference = np.abs(ours - theirs).max() if ours.shape == theirs.shape else np.inf
    if not difference <= tolerance:
        raise AssertionError(f"{what}: ours and the peer's differ by {difference:.1e} (> {tolerance:.0e})")


class Meter:
    """CPU and wall seconds of a block, its child processes included, and its peak memory. Linux only."""

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        self.memory_before = memory_gb("VmRSS")
        self.started = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(self, *exception):
        self.wall = time.perf_counter() - self.started[0]
        self.cpu = cpu_seconds() - self.started[1]
        self.peak_gb = memory_gb("VmHWM")  # ru_maxrss would count the parent's memory at the fork
        self.growth_gb = self.peak_gb - self.memory_before


def cpu_seconds():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def memory_gb(field):
    """VmRSS (now) or VmHWM (peak) of this process, in 1e9 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e9
    raise KeyError(field)


def in_a_process(function, *arguments, threads=1):
    """function(*arguments) in a fresh process: its result; memory and caches of this one do not count.

    Args:
        function: at the top of a module of benchmarks; arguments and result can be pickled.
    """
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=pickle.dumps((function.__module__, function.__name__, arguments)),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        check=True,
    )
    return pickle.loads(done.stdout)  # noqa: S301  of our own process


def answer():
    """The other end of in_a_process; whatever the function prints goes to stderr."""
    module, name, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  of our own process
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    function = getattr(__import__(module, fromlist=[name]), name)
    answers.write(pickle.dumps(function(*arguments)))
    answers.flush()


@functools.cache
def gemm_ceiling(size=GEMM_SIZE, rounds=5):
    """{"fp32": …, "bf16": …}: GFLOP per CPU second of a square matrix product on one thread; of fp32 by MKL
    or by oneDNN, whichever is faster."""
    exact = torch.randn(size, size)
    products = (torch.mm, exact), (cpu_layers.linear, exact), (torch.mm, exact.bfloat16())
    ways = [functools.partial(product, matrix, matrix) for product, matrix in products]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    interleaved(*ways, rounds=1)  # warm-up
    # Some products at a time, so that reading the clock does not count.
    times = interleaved(*(functools.partial(repeat, way, 10) for way in ways), rounds=rounds)
    torch.set_num_threads(before)
    flops = 10 * 2 * size**3
    *fp32, bf16 = (flops / timing.cpu / 1e9 for timing in times)
    return {"fp32": max(fp32), "bf16": bf16}


def repeat(way, times):
    for _ in range(times):
        way()


def machine():
    """One line: processor, cores, torch, commit."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].split(": ")[1] if names else "unknown processor"
    return f"{model}, {cores()} cores, torch {torch.__version__}, commit {commit()}"
