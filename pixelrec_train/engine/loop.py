"""The training loop. It knows batches, losses and metrics; it has never heard of a model."""

import math
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F

from pixelrec_train.engine.checkpoint import save_checkpoint
from pixelrec_train.engine.profile import profiling
from pixelrec_train.engine.window import Window
from pixelrec_train.errors import StopRequested, TrainingStopped
from pixelrec_train.run import watchdog

BEST_BY = "ndcg@10"


def train(engine, loader, evaluators, state, config, log, signals, best_by=BEST_BY):
    """Train from wherever `state` stands to the end of the last epoch.

    `engine(batch)` returns (loss, metrics), so every task comes through here unchanged. Every rank runs
    every line, checkpoints included; only `log` is silent outside rank 0.

    Args:
        signals: StopSignals.
        best_by: the figure of the evaluators that makes a checkpoint best_model; more is better.

    Raises:
        StopRequested: a signal came, and a checkpoint is saved.
        TrainingStopped: the loss was not finite at a logging step, or the task says it is meaningless, or the
            last checkpoint could not be written.
    """
    watching = profiling(engine, config, log)  # the first epoch
    saved = True
    while state.epoch < config.num_train_epochs:
        with watching:
            train_epoch(engine, loader, state, config, log, signals)
        watching = nullcontext()
        results = evaluate(engine, evaluators)
        best_before = state.best_score, state.best_epoch
        is_best = state.finish_epoch(results[best_by])
        log.evaluation(state, results, config.num_train_epochs, is_best)
        if not (saved := save_checkpoint(engine, state, config, log, is_best)):
            state.best_score, state.best_epoch = best_before  # the best of those that exist
        signals.asked()
        if number := signals.asked():  # twice: the second knows what came during evaluation
            raise stopped_by(number, saved)
    if not saved:
        raise TrainingStopped(NOT_SAVED)


NOT_SAVED = (
    "the last checkpoint could not be written, see the log above. Make room, and go on from the one before "
    "with --resume auto."
)


def stopped_by(number, saved):
    return StopRequested(number, saved) if saved else TrainingStopped(NOT_SAVED)


def train_epoch(engine, loader, state, config, log, signals):
    engine.train()
    state.window = state.window or Window()  # a resumed one goes on
    per_step = config.gradient_accumulation_steps
    batches = iter(loader.epoch(state.epoch, skip=state.batch))
    while (batch := next_batch(state, batches)) is not None:
        # The last step of an epoch may hold fewer micro-batches; no gradient crosses into the next epoch.
        parts = min(per_step, len(loader) - state.batch // per_step * per_step)
        state.batch += 1
        stepping = state.batch % per_step == 0 or state.batch == len(loader)
        engine.set_gradient_accumulation_boundary(stepping)
        loss, metrics = engine(batch.to(engine.device))
        engine.backward(loss / parts, scale_wrt_gas=False)
        engine.step()  # does nothing until the boundary, then clips, updates and moves the schedule
        state.window.add(loss, metrics, batch, stepping)
        if not stepping:
            continue
        state.step += 1
        if state.step % config.logging_steps == 0 or state.step == state.total_steps:
            report = state.window.close() | {
                "epoch": state.epoch + state.batch / len(loader),
                "lr": engine.get_lr()[0],
                "grad_norm": float(engine.get_global_grad_norm()),
            }
            report["eta_s"] = report["step_ms"] / 1000 * (state.total_steps - state.step)
            log.step(state, report, config.num_train_epochs)
            refuse_non_finite(report, state, config)
            engine.module.watch(report)
            state.window = Window()
        due = config.save_steps and state.step % config.save_steps == 0 and state.batch < len(loader)
        if (number := signals.asked()) or due:
            saved = save_checkpoint(engine, state, config, log)
        if number:
            raise stopped_by(number, saved)
    state.window = None


def next_batch(state, batches):
    watchdog.at(f"step {state.step + 1}: waiting for a batch")
    batch = state.window.wait_for(batches)
    watchdog.at(f"step {state.step + 1}: forward and backward")
    return batch


def evaluate(engine, evaluators):
    """Run every evaluator on the current weights: {"valid_loss": 3.91, "recall@10": 0.061, …}."""
    results = {}
    watchdog.at("evaluation")
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
