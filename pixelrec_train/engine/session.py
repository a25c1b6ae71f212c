"""How every training starts, resumes, logs and ends; what differs is task, data and evaluators."""

import contextlib
import os
import random
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.config import LoopFlags
from pixelrec_train.engine import checkpoint
from pixelrec_train.engine.build import build_engine
from pixelrec_train.engine.manifest import verify
from pixelrec_train.engine.resume import (
    check_same_on_all_ranks,
    check_same_run,
    checkpoint_to_resume,
    why_nothing_is_left,
)
from pixelrec_train.engine.state import TrainState, steps_per_epoch, total_steps
from pixelrec_train.engine.task import Objective
from pixelrec_train.errors import InputError, StopRequested
from pixelrec_train.files import possible_directory
from pixelrec_train.run import board, exit_status, rendezvous, watchdog
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run.checkpoints import check_steps_free
from pixelrec_train.run.continuing import how_to_go_on
from pixelrec_train.run.hub import fetched, taken
from pixelrec_train.run.log import RunLog, log_path, say, show_under_tensorboard, tensorboard_dir
from pixelrec_train.run.signals import StopSignals
from pixelrec_train.run.trackers import asked_for


def on_all_ranks(loop, work, resume=None, can_resume=True, weights="--init_from {}"):
    """work() on all ranks, from their meeting to their parting; nothing where the run is finished.

    Args:
        resume: --resume.
        can_resume: False where the command starts anew after a signal; it then ends with 128 + its number.
        weights: the flag by which another run starts from those of a best_model.
    """
    if resume and (Path(loop.output_dir) / "table.json").is_file():
        say(why_nothing_is_left(loop, weights))
        return
    rendezvous.initialise(loop.collective_timeout_minutes)
    try:
        with claimed_directory(loop, going_on=bool(resume)):
            work()
    except StopRequested as stop:
        if not can_resume:
            sys.exit(128 + stop.number)
        say(how_to_go_on())
        rendezvous.finish()
        raise
    rendezvous.finish()  # not after an error: it would wait for ranks that wait for this one


def start(flags, run, lines, weights="--init_from {}"):
    """A training's whole life: on all ranks, or with --dry_run its plan on the screen alone.

    Models that flags name in a hub are directories by then.

    Args:
        flags: RunFlags, or all of a command's.
        run: flags -> trains; called on every rank.
        lines: flags -> lines of the plan for --dry_run ranks.
        weights: see on_all_ranks.
    """
    if not flags.dry_run:
        return on_all_ranks(flags, lambda: run(fetched(flags)), flags.resume, weights=weights)
    check_places(flags, going_on=bool(flags.resume))
    print("\n".join(lines(fetched(flags))))


@dataclass
class Session:
    """A training that stands where it begins or goes on; what the loop works with."""

    engine: object  # DeepSpeed's, around the task
    # batches_in(epoch): how many micro-batches; epoch(number, skip) gives them; perhaps carried(), tensors by
    # name that a checkpoint has besides the place, and carry(tensors), which takes them back
    loader: object
    state: TrainState
    loop: LoopFlags
    log: RunLog
    signals: StopSignals
    best_by: str  # the figure that chooses best_model
    patience: int | None = None  # evaluations without a better one, after which training ends
    saved: object = True  # the newest checkpoint; None where it could not be written
    saved_at: tuple | None = None  # (epoch, batch) it stands at
    rehearsed: bool = False  # see preflight.py

    @property
    def objective(self) -> Objective:
        return self.engine.module.objective

    @property
    def position(self):
        """Where the run stands, in epochs."""
        epoch, batch = self.state.epoch, self.state.batch
        return epoch + batch / self.loader.batches_in(epoch) if batch else epoch

    @property
    def epochs(self):
        """Of the whole run; the last may be cut short."""
        steps, epochs = 0, 0
        while steps < self.state.total_steps:
            steps, epochs = steps + steps_per_epoch(self.loader.batches_in(epochs), self.loop), epochs + 1
        return epochs

    @property
    def best_is_here(self):
        """Whether the engine holds the weights of best_model."""
        return self.state.best_epoch in (None, self.position)


@contextmanager
def session(task, loader, loop, resolved, facts, plan=(), resume=None, best_by=None, patience=None):
    """A Session. All ranks call it; who reads the log file sees why it ends where it ends.

    Args:
        task: Task.
        loader: see Session.
        loop: LoopFlags, or all of a command's: they are written down as the run's.
        resolved: the DeepSpeed JSON, see ds_config.resolve.
        facts: of the data, for run.json: {"data": {name: fingerprint or number}}.
        plan: lines for the top of the log.
        resume, best_by, patience: the flags.
    """
    watchdog.at("building the engine")
    best_by = task.objective.chosen_by(best_by)
    check_same_on_all_ranks(loop, facts, resolved)
    state = TrainState(total_steps=total_steps(loader.batches_in, loop))
    if resumed := distributed.from_first_rank(checkpoint_to_resume(resume, loop.output_dir)):
        verify(resumed)
        check_same_run(loop, resumed, facts, distributed.world_size())
    engine = build_engine(task, loop, resolved, state.total_steps)
    stands = Session(engine, loader, state, loop, None, None, best_by, patience)
    if resumed:
        checkpoint.load_checkpoint(stands, resumed)
    # Replaces an earlier run, now that the engine stands.
    log = stands.log = open_log(loop, task.objective, resolved, facts, state.step if resumed else None)
    try:
        with StopSignals() as stands.signals:
            if resumed:
                log.note(f"resumed from {resumed}: epoch {state.epoch + 1}, step {state.step}")
            for line in plan:
                log.note(line)
            yield stands
            if state.best_score is None:
                log.note(f"done: {state.step} steps")
            else:
                best = f"best epoch {state.best_epoch:.4g} (validation {best_by} {state.best_score:.4f})"
                log.note(f"done: {state.step} steps, {best}")
    except BaseException as error:
        exit_status.write_down(log.note, f"stopped after step {state.step}", error)
        log.failed = True
        raise
    finally:
        log.close()


def open_log(loop, objective, resolved, facts, resumed_at=None):
    """Write down what runs, then open the log.

    resumed_at: the step a resumed run goes on from: what it wrote up to there stays.
    """
    run = Path(loop.output_dir)
    if distributed.rank() == 0 and resumed_at is not None:
        run_directory.forget_after(run, resumed_at)
    elif distributed.rank() == 0:
        run_directory.clear(run)
        facts = {"ranks": distributed.world_size(), "hub": taken(loop)} | facts
        run_directory.record_start(run, loop, resolved, facts)
        with contextlib.suppress(OSError):  # RunLog says it when it cannot write there
            board.forget(tensorboard_dir(loop))  # of the run this one replaces
            if not Path(loop.logging_dir).resolve().is_relative_to(run.resolve()):
                show_under_tensorboard(loop.logging_dir)
    distributed.barrier()
    log_files = (log_path(loop.logging_dir), run / "train.log")
    log = RunLog(log_files, run / "metrics.jsonl", tensorboard_dir(loop), objective, resumed_at)
    log.note(
        f"start: {distributed.world_size()} ranks on {distributed.device().type}, "
        f"{torch.get_num_threads()} threads each; process {os.getpid()}; run directory {run}"
    )
    watchdog.tell(log.note)
    log.track(loop, run, tensorboard_dir(loop).name, resumed_at is not None)
    return log


@contextmanager
def claimed_directory(loop, going_on=False):
    """Rank 0 holds the run directory; if it cannot, or a rank does not see it, all stop with the reason.

    going_on: an unfinished run may lie there, to be continued (or begun anew before its first checkpoint).
    """
    with contextlib.ExitStack() as stack:
        problem, holder = None, None
        if distributed.rank() == 0:
            try:
                check_places(loop, going_on)
                holder = stack.enter_context(run_directory.lock(loop.output_dir))
            except InputError as error:
                problem = str(error)
        problem, holder = distributed.from_first_rank((problem, holder))
        blind = distributed.gather_objects(not problem and run_directory.holder(loop.output_dir) != holder)
        if any(blind):
            problem = (
                f"rank {blind.index(True)} does not see the --output_dir {loop.output_dir} of rank 0. "
                f"On several machines it must lie on a file system they share."
            )
        if problem:
            raise InputError(problem)
        yield


def check_places(loop, going_on=False):
    """Raises InputError where the run directory is not free, or it and the log cannot be written; and where a
    tracker is not installed."""
    run_directory.check_free(loop.output_dir, loop.overwrite or going_on)
    if loop.checkpoint_layout == "global_step":
        check_steps_free(loop.output_dir)
    possible_directory(loop.logging_dir, "--logging_dir")
    asked_for(loop.report_to, loop.logging_dir)


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
