"""The training loop. It knows batches, losses and metrics; it has never heard of a model."""

import math
from contextlib import nullcontext

import torch

from pixelrec_train import distributed
from pixelrec_train.engine.checkpoint import save_checkpoint
from pixelrec_train.engine.log_sums import LogSums
from pixelrec_train.engine.preflight import is_due, preflight
from pixelrec_train.engine.profile import profiling
from pixelrec_train.engine.zero import judging
from pixelrec_train.errors import InputError, StopRequested, TrainingStopped
from pixelrec_train.run import watchdog
from pixelrec_train.run.signals import BrokenOff


def train(session, evaluators=()):
    """Train from wherever the session stands to its last step.

    `engine(batch)` returns (loss, metrics), so every task comes through here unchanged. Every rank runs
    every line, checkpoints included; only the log is silent outside rank 0.

    Args:
        session: session.Session.
        evaluators: functions that give {figure: value} of the current weights. Without any, what is saved
            after an epoch is best_model.

    Raises:
        StopRequested: a signal came, and a checkpoint is saved.
        TrainingStopped: the loss was not finite at a logging step, or the task says it is meaningless, or the
            last checkpoint could not be written.
    """
    state, watching = session.state, profiling(session)  # the first epoch
    if session.loop.preflight and going_on(session):
        preflight(session, evaluators)
    while going_on(session):
        with watching:
            train_epoch(session, evaluators)
        watching = nullcontext()
        if state.batch and going_on(session):
            end_epoch(session, evaluators)
        session.signals.asked()
        if number := session.signals.asked():  # twice: the second knows what came during evaluation
            save_and_stop(session, number)
    if not session.saved:
        raise TrainingStopped(NOT_SAVED)


def end_epoch(session, evaluators):
    """Broken off by a signal, it is not over: what is saved then goes on with its evaluation."""
    state, batches = session.state, session.state.batch
    state.epoch, state.batch = state.epoch + 1, 0
    try:
        judge_and_save(session, evaluators, keep=session.loop.save_strategy == "epoch")
    except BrokenOff as broken:
        state.epoch, state.batch = state.epoch - 1, batches
        save_and_stop(session, broken.number)


def save_and_stop(session, number):
    save(session)
    raise stopped_by(number, session.saved)


def going_on(session):
    """Whether there is something to do: a step, or the end of an epoch (the last may be cut short)."""
    state, patience = session.state, session.patience
    return (state.step < state.total_steps or state.batch > 0) and not (
        patience and state.since_best >= patience
    )


NOT_SAVED = (
    "the last checkpoint could not be written, see the log above. Make room, and go on from the one before "
    "with --resume auto."
)


def stopped_by(number, saved):
    return StopRequested(number, saved) if saved else TrainingStopped(NOT_SAVED)


def train_epoch(session, evaluators):
    """To the end of the epoch, or of the run."""
    engine, loader, state, loop = session.engine, session.loader, session.state, session.loop
    engine.train()
    state.sums = state.sums or LogSums()  # a resumed one goes on
    if state.owes_evaluation:
        judge_amid(session, evaluators)
    of_epoch = loader.batches_in(state.epoch)
    batches = iter(loader.epoch(state.epoch, skip=state.batch))
    while going_on(session) and state.step < state.total_steps and state.batch < of_epoch:
        # The last step of an epoch may hold fewer micro-batches; no gradient crosses into the next epoch.
        parts = min(loop.gradient_accumulation_steps, of_epoch - state.batch)
        step = [batch for _ in range(parts) if (batch := next_batch(state, batches)) is not None]
        if not step:
            break
        for batch, weight in zip(step, weights_of(engine.module, step), strict=True):
            state.batch += 1
            stepping = batch is step[-1]
            engine.set_gradient_accumulation_boundary(stepping)
            loss, metrics = engine(batch.to(engine.device))
            loss = loss * weight
            engine.backward(loss / parts, scale_wrt_gas=False)
            engine.step()  # does nothing until the boundary, then clips, updates and moves the schedule
            state.sums.add(loss, metrics, batch, stepping, engine.module.flops(batch))
        state.step += 1
        if state.step % loop.logging_steps == 0 or state.step == state.total_steps:
            eta_s = log_step(session)
            if is_due(session, eta_s):
                with state.sums.paused():
                    preflight(session, evaluators)
        last = state.batch == of_epoch or state.step == state.total_steps
        if loop.eval_steps and state.step % loop.eval_steps == 0 and not last:
            judge_amid(session, evaluators)
            if not going_on(session):
                break
        due = loop.save_steps and state.step % loop.save_steps == 0 and not last
        if (number := session.signals.asked()) or due:
            save(session)
        if number:
            raise stopped_by(number, session.saved)
    state.sums = None


def judge_amid(session, evaluators):
    """In the middle of an epoch. Broken off by a signal, it is done first when the run is resumed."""
    state = session.state
    state.owes_evaluation = True
    try:
        with state.sums.paused():
            judge_and_save(session, evaluators, keep=False)
    except BrokenOff as broken:
        save_and_stop(session, broken.number)
    session.engine.train()


def weights_of(task, step):
    """What the losses of a step's micro-batches count beside each other, 1 on average.

    Where losses are means over labels, that of few labels counts less: together they are the mean over all
    labels of the step, as if it were one micro-batch.
    """
    own = [task.weight(batch) for batch in step]
    if len(step) == 1 or None in own:
        return [1.0] * len(step)
    weights = distributed.mean_tensor(distributed.sent(torch.tensor(own)))
    mean = weights.mean()
    return torch.where(mean > 0, weights / mean, 1.0).unbind()


def next_batch(state, batches):
    watchdog.at(f"step {state.step + 1}: waiting for a batch")
    batch = state.sums.wait_for(batches)
    watchdog.at(f"step {state.step + 1}: forward and backward")
    return batch


def log_step(session):
    """Tell of the steps since the last line; gives the seconds to the end of the run."""
    engine, state = session.engine, session.state
    report = state.sums.close() | {
        "epoch": session.position,
        "lr": engine.get_lr()[0],
        "grad_norm": float(engine.get_global_grad_norm()),
    }
    report["eta_s"] = report["step_ms"] / 1000 * (state.total_steps - state.step)
    session.log.step(state, report, session.epochs)
    refuse_non_finite(report, state, session.loop)
    engine.module.watch(report)
    state.sums = LogSums()
    return report["eta_s"]


def judge_and_save(session, evaluators, keep):
    """Evaluate; save what is best, or the last, or asked for."""
    state, best_by = session.state, session.best_by
    before, is_best = (state.best_score, state.best_epoch, state.since_best), True
    if evaluators:
        with session.signals.breaking_off():
            results = evaluate(session.engine, evaluators)
        if best_by not in results:
            raise InputError(f"--best_by {best_by}: evaluation gives {', '.join(results)}.")
        is_best = state.judge(results[best_by], session.position, best_by in session.objective.falling)
        session.log.evaluation(state, results, session.position, session.epochs, is_best)
    state.owes_evaluation = False
    if keep or is_best or state.step == state.total_steps:
        if not save(session, is_best):
            state.best_score, state.best_epoch, state.since_best = before  # the best of those that exist
    if not going_on(session) and state.step < state.total_steps:
        session.log.note(f"no better {best_by} in {state.since_best} evaluations: training ends here")


def save(session, is_best=False):
    """Write a checkpoint, unless the last one stands just here; the directory, or None."""
    here = session.state.epoch, session.state.batch
    if session.saved_at != here:
        session.saved = save_checkpoint(session, is_best)
        session.saved_at = here if session.saved else None
    return session.saved


def evaluate(engine, evaluators):
    """Run every evaluator on the current weights: {"valid_loss": 3.91, "recall@10": 0.061, …}."""
    results = {}
    watchdog.at("evaluation")
    with judging(engine):
        for evaluator in evaluators:
            results |= evaluator()
    return results


def refuse_non_finite(report, state, loop):
    """Stop on a NaN or infinite loss or gradient: DeepSpeed would skip such steps, one after the other."""
    for name in ("loss", "grad_norm"):
        if not math.isfinite(report[name]):
            raise TrainingStopped(
                f"{name} is {report[name]} at step {state.step} "
                f"(epoch {state.epoch + 1}, batch {state.batch}). "
                f"Last good checkpoint: {state.checkpoints[-1] if state.checkpoints else 'none yet'}. "
                f"Try a lower --learning_rate, a longer --warmup_ratio, or a smaller --max_grad_norm "
                f"than {loop.max_grad_norm}."
            )
