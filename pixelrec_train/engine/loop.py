"""The training loop. It knows batches, losses and metrics; it has never heard of a model."""

import math
import resource
import sys
import time
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from pixelrec_train import distributed
from pixelrec_train.engine.checkpoint import save_checkpoint
from pixelrec_train.errors import TrainingStopped

BEST_BY = "ndcg@10"


def train(engine, loader, evaluators, state, config, log):
    """Train from wherever `state` stands to the end of the last epoch.

    `engine(batch)` returns (loss, metrics), so every task comes through here unchanged. Every rank runs
    every line, checkpoints included; only `log` is silent outside rank 0.

    Raises:
        TrainingStopped: the loss was not finite at a logging step, or the task says it is meaningless.
    """
    while state.epoch < config.num_train_epochs:
        train_epoch(engine, loader, state, config, log)
        results = evaluate(engine, evaluators)
        is_best = state.finish_epoch(results[BEST_BY])
        log.evaluation(state, results, config.num_train_epochs, is_best)
        save_checkpoint(engine, state, config, is_best, log)


def train_epoch(engine, loader, state, config, log):
    engine.train()
    window = Window()
    per_step = config.gradient_accumulation_steps
    batches = iter(loader.epoch(state.epoch, skip=state.batch))
    while (batch := window.wait_for(batches)) is not None:
        # The last step of an epoch may hold fewer micro-batches; no gradient crosses into the next epoch.
        parts = min(per_step, len(loader) - state.batch // per_step * per_step)
        state.batch += 1
        stepping = state.batch % per_step == 0 or state.batch == len(loader)
        engine.set_gradient_accumulation_boundary(stepping)
        loss, metrics = engine(batch.to(engine.device))
        engine.backward(loss / parts, scale_wrt_gas=False)
        engine.step()  # does nothing until the boundary, then clips, updates and moves the schedule
        window.add(loss, metrics, batch, stepping)
        if not stepping:
            continue
        state.step += 1
        if state.step % config.logging_steps == 0 or state.step == state.total_steps:
            report = window.close() | {
                "epoch": state.epoch + state.batch / len(loader),
                "lr": engine.get_lr()[0],
                "grad_norm": float(engine.get_global_grad_norm()),
            }
            report["eta_s"] = report["step_ms"] / 1000 * (state.total_steps - state.step)
            log.step(state, report, config.num_train_epochs)
            refuse_non_finite(report, state, config)
            engine.module.watch(report)
            window = Window()


def evaluate(engine, evaluators):
    """Run every evaluator on the current weights: {"valid_loss": 3.91, "recall@10": 0.061, …}."""
    results = {}
    with judging(engine):
        for evaluator in evaluators:
            results |= evaluator()
    return results


@contextmanager
def judging(engine):
    """Evaluation mode, in which every layer computes as it will when the checkpoint is loaded elsewhere.

    ZeRO-3 replaces torch's linear by one that rounds a second time where a bias is added: in bf16 that
    moves embeddings by a last digit, and figures with them.
    """
    engine.eval()
    swapped, F.linear = F.linear, torch._C._nn.linear
    try:
        yield
    finally:
        F.linear = swapped


class Window:
    """Sums between two log lines, kept on the device: adding to them never waits for it."""

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
        for name, value in ({"loss": loss} | metrics).items():
            self.sums[name] = self.sums.get(name, 0.0) + torch.as_tensor(value).detach().float()
        self.batches, self.steps = self.batches + 1, self.steps + stepping
        self.users, self.items = self.users + batch.num_users, self.items + batch.num_items
        self.tokens += batch.num_tokens

    def close(self):
        """Averages over the window and all ranks, and rates of the whole job; the one wait for the device.

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
        return means | rates | {
            "step_ms": 1000 * seconds / self.steps, "data_wait_pct": waited, "memory_gb": peak_memory_gb(),
        }  # fmt: skip


def peak_memory_gb():
    """Peak of the device's memory, or of this process where the device is the CPU."""
    if distributed.uses_gpu():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def refuse_non_finite(report, state, config):
    """Stop on a NaN or infinite loss or gradient: DeepSpeed would skip such steps, one after the other."""
    for name in ("loss", "grad_norm"):
        if not math.isfinite(report[name]):
            raise TrainingStopped(
                f"{name} is {report[name]} at step {state.step} "
                f"(epoch {state.epoch + 1}, batch {state.batch}). "
                f"Last good checkpoint: {state.checkpoints[-1] if state.checkpoints else 'none yet'}. "
                f"Try a lower --learning_rate, a longer --warmup_ratio, or a smaller --max_grad_norm "
                f"than {config.max_grad_norm}."
            )
