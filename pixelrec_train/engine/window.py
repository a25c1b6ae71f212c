"""What is summed up between two log lines."""

import resource
import sys
import time

import torch

from pixelrec_train import distributed


class Window:
    """Sums since the last log line, kept on the device: adding to them never waits for it."""

    def __init__(self):
        self.started = time.monotonic()
        self.waited = 0.0
        self.sums, self.batches, self.steps = {}, 0, 0
        self.users = self.items = self.tokens = 0

    def wait_for(self, batches):
        """The next batch or None, and the time it kept the device waiting."""
        before = time.monotonic()
        batch = next(batches, None)
        self.waited += time.monotonic() - before
        return batch

    def add(self, loss, metrics, batch, stepping):
        for name, value in ({"loss": loss} | as_sums(metrics)).items():
            self.sums[name] = self.sums.get(name, 0.0) + torch.as_tensor(value).detach().float()
        self.batches, self.steps = self.batches + 1, self.steps + stepping
        self.users, self.items = self.users + batch.num_users, self.items + batch.num_items
        self.tokens += batch.num_tokens

    def close(self):
        """Averages over the window and all ranks, and rates of the whole job; the one wait for the device.

        A metric that came as (sum, count) is the quotient of all sums and all counts; left out at count 0.

        users_per_s counts training windows, items_per_s encoded items, tokens_per_s tokens through the item
        LLM, all ranks together; step_ms is the window's wall time per optimizer step;
        data_wait_pct the share of it spent waiting for a batch; memory_gb the largest peak so far on rank 0.
        """
        counts = {"users": self.users, "items": self.items, "tokens": self.tokens, "waited": self.waited}
        means = distributed.mean_over_ranks(
            {name: total / self.batches for name, total in self.sums.items()} | counts
        )
        seconds = time.monotonic() - self.started
        ranks = distributed.world_size()
        rates = {f"{name}_per_s": means.pop(name) * ranks / seconds for name in ("users", "items", "tokens")}
        waited = 100 * means.pop("waited") / seconds
        return quotients(means) | rates | {
            "step_ms": 1000 * seconds / self.steps, "data_wait_pct": waited, "memory_gb": peak_memory_gb(),
        }  # fmt: skip

    def as_dict(self):
        """This rank's sums, exactly, for a checkpoint between two log lines."""
        sums = {name: float(total) for name, total in self.sums.items()}
        kept = {name: getattr(self, name) for name in KEPT}
        return kept | {"sums": sums, "seconds": time.monotonic() - self.started}

    @staticmethod
    def from_dict(saved):
        window = Window()
        window.started -= saved["seconds"]
        window.sums = {n: torch.tensor(x, device=distributed.device()) for n, x in saved["sums"].items()}
        for name in KEPT:
            setattr(window, name, saved[name])
        return window


PARTS = ("sum", "count")
KEPT = ("waited", "batches", "steps", "users", "items", "tokens")


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
