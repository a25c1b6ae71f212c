"""What is summed up between two log lines."""

import resource
import sys
import time
from contextlib import contextmanager

import torch

from pixelrec_train import distributed
from pixelrec_train.engine.device_peak import own_peak


class LogSums:
    """Sums since the last log line, kept on the device: adding to them never waits for it."""

    def __init__(self):
        self.started = time.monotonic()
        self.waited, self.flops = 0.0, 0
        self.sums, self.counts, self.batches, self.steps = {}, {}, 0, 0

    @contextmanager
    def paused(self):
        """What is done in here does not count as time of training."""
        before = time.monotonic()
        yield
        self.started += time.monotonic() - before

    def wait_for(self, batches):
        """The next batch or None, and the time it kept the device waiting."""
        before = time.monotonic()
        batch = next(batches, None)
        self.waited += time.monotonic() - before
        return batch

    def add(self, loss, metrics, batch, stepping, flops=None):
        """flops: what the task says this batch took, see Task.flops."""
        for name, value in ({"loss": loss} | as_sums(metrics)).items():
            self.sums[name] = self.sums.get(name, 0.0) + torch.as_tensor(value).detach().float()
        self.batches, self.steps = self.batches + 1, self.steps + stepping
        self.flops += flops or 0
        for name, count in batch.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def close(self):
        """Averages since the last log line over all ranks, and rates of the job; the one wait for the device.

        A metric that came as (sum, count) is the quotient of all sums and all counts; left out at count 0.

        {name}_per_s are the batches' counts per second, all ranks together; step_ms is the wall time
        per optimizer step; data_wait_pct the share of it spent waiting for a batch; memory_gb the largest
        peak so far on rank 0; gpu_utilisation how busy its GPU is just now, see there. Where the task counts
        them, tflops_per_s are the 10^12 operations per second of one rank, the mean of all, and mfu_pct is
        their share of what its device computes at most in bf16 (left out where that is not known).
        """
        means = {name: total / self.batches for name, total in self.sums.items()}
        counts = {f"{name}_per_s": count for name, count in self.counts.items()}
        means = distributed.mean_over_ranks(means | counts | {"waited": self.waited, "flops": self.flops})
        seconds = time.monotonic() - self.started
        ranks = distributed.world_size()
        rates = {name: means.pop(name) * ranks / seconds for name in counts}
        waited = 100 * means.pop("waited") / seconds
        computed = speed(means.pop("flops") / seconds)
        own = {"data_wait_pct": waited, "memory_gb": peak_memory_gb()} | gpu_utilisation()
        return quotients(means) | rates | computed | {"step_ms": 1000 * seconds / self.steps} | own

    def as_dict(self):
        """This rank's sums, exactly, for a checkpoint between two log lines."""
        sums = {name: float(total) for name, total in self.sums.items()}
        kept = {name: getattr(self, name) for name in KEPT}
        return kept | {"sums": sums, "seconds": time.monotonic() - self.started}

    @staticmethod
    def from_dict(saved):
        if "counts" not in saved:  # of a version before this one
            saved = saved | {"counts": {name: saved[name] for name in ("users", "items", "tokens")}}
        saved = {"flops": 0} | saved  # of a version before this one, too
        made = LogSums()
        made.started -= saved["seconds"]
        made.sums = {n: torch.tensor(x, device=distributed.device()) for n, x in saved["sums"].items()}
        for name in KEPT:
            setattr(made, name, saved[name])
        return made


def mean_of(ranks):
    """as_dict of other ranks than these, so that together they say the same.

    What is an average of the ranks stays as it is; what adds up over them is more for each of fewer ranks.
    """
    fewer, first = len(ranks) / distributed.world_size(), ranks[0]

    def mean(values):
        return sum(values) / len(ranks)

    sums = {name: mean(r["sums"][name] for r in ranks) for name in first["sums"]}
    ends = tuple(f"/{part}" for part in PARTS)
    sums |= {name: total * fewer for name, total in sums.items() if name.endswith(ends)}
    counts = {name: mean(r["counts"][name] for r in ranks) * fewer for name in first["counts"]}
    waited, flops = mean(r["waited"] for r in ranks), mean(r.get("flops", 0) for r in ranks) * fewer
    return first | {"sums": sums, "counts": counts, "waited": waited, "flops": flops}


PARTS = ("sum", "count")
KEPT = ("waited", "flops", "batches", "steps", "counts")


def speed(flops):
    """{figure: value} of so many operations per second of a rank; none where nobody counts them."""
    peak = own_peak()
    found = {"tflops_per_s": flops / 1e12} if flops else {}
    return found | ({"mfu_pct": 100 * flops / 1e12 / peak} if flops and peak else {})


def as_sums(metrics):
    """{"a": x, "b": (sum, count)} -> {"a": x, "b/sum": sum, "b/count": count}"""
    pairs = {name: value for name, value in metrics.items() if isinstance(value, tuple)}
    sums = {f"{name}/{part}": x for name, pair in pairs.items() for part, x in zip(PARTS, pair, strict=True)}
    return {name: value for name, value in metrics.items() if name not in pairs} | sums


def quotients(means):
    """The way back, each pair as one number."""
    names = [name.removesuffix("/sum") for name in means if name.endswith("/sum")]
    pairs = {name: [means.pop(f"{name}/{part}") for part in PARTS] for name in names}
    return means | {name: total / count for name, (total, count) in pairs.items() if count}


def peak_memory_gb():
    """Peak of the device's memory, or of this process where the device is the CPU."""
    if distributed.uses_gpu():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def gpu_utilisation():
    """{"gpu_utilisation": percent of the last second or less in which this rank's GPU computed, as NVML says}

    Nothing on CPUs, and where NVML does not say it (no nvidia-ml-py, a part of a GPU, another maker).
    """
    if not distributed.uses_gpu():
        return {}
    try:
        return {"gpu_utilisation": float(torch.cuda.utilization())}
    except Exception:  # errors of its own kind for each reason; a figure is not worth a run
        return {}
