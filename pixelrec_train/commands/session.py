"""What every training has in common: an engine, new or resumed, and a log that says how it ends."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pixelrec_train import distributed
from pixelrec_train.commands.resume import check_same_run, checkpoint_to_resume
from pixelrec_train.commands.start import claimed_directory, open_log, telling
from pixelrec_train.engine import checkpoint, loop
from pixelrec_train.engine.build import build_engine
from pixelrec_train.engine.manifest import verify
from pixelrec_train.engine.state import TrainState, steps_per_epoch
from pixelrec_train.errors import StopRequested
from pixelrec_train.evaluation.report import beside_popularity, candidates, draw_curves, write_table
from pixelrec_train.run import rendezvous, watchdog
from pixelrec_train.run.log import RunLog, say
from pixelrec_train.run.signals import StopSignals


def carry_out(config, run):
    """run(config) on all ranks, from their meeting to their parting; nothing where the run is finished.

    config: LoopConfig with `resume`.
    """
    if config.resume and (Path(config.output_dir) / "table.json").is_file():
        say(f"--resume: the run in {config.output_dir} is finished; nothing to do")
        return
    rendezvous.initialise(config.collective_timeout_minutes)
    try:
        with claimed_directory(config, going_on=bool(config.resume)):
            run(config)
    except StopRequested:
        say("The same command with --resume auto goes on from there.")
        rendezvous.finish()
        raise
    rendezvous.finish()  # not after an error: it would wait for ranks that wait for this one


def carry_out_anew(config, work):
    """work(config) on all ranks, for what does not go on after a signal: it ends with 128 + its number.

    config: LoopConfig.
    """
    rendezvous.initialise(config.collective_timeout_minutes)
    try:
        with claimed_directory(config):
            work(config)
    except StopRequested as stop:
        sys.exit(128 + stop.number)
    rendezvous.finish()


class Session(NamedTuple):
    engine: object  # DeepSpeed's
    state: TrainState
    log: RunLog
    signals: StopSignals


@contextmanager
def session(config, task, loader, resolved, facts, plan):
    """A Session that stands where the run begins or goes on. All ranks call it.

    Args:
        config: LoopConfig with `resume`.
        resolved: the DeepSpeed JSON, see engine/ds_config.py.
        facts: of the data, for run.json.
        plan: lines for the top of the log.
    """
    watchdog.at("building the engine")
    state = TrainState(total_steps=steps_per_epoch(len(loader), config) * config.num_train_epochs)
    if resumed := distributed.from_first_rank(checkpoint_to_resume(config)):
        verify(resumed)
        check_same_run(config, resumed, facts, distributed.world_size())
    engine = build_engine(task, config, resolved, state.total_steps)
    if resumed:
        checkpoint.load_checkpoint(engine, state, resumed)
    # Replaces an earlier run, now that the engine stands.
    log = open_log(config, resolved, facts, state.step if resumed else None)
    with telling(log, state) as signals:
        if resumed:
            log.note(f"resumed from {resumed}: epoch {state.epoch + 1}, step {state.step}")
        for line in plan:
            log.note(line)
        yield Session(engine, state, log, signals)


def conclude(ranks, inputs, state, config, log, judged="", more=None):
    """The last words of a run: its table on the test split and its curves. All ranks call it.

    Args:
        ranks: {name: [E] places} that models gave the test split's targets.
        judged: what the note under the table adds about how.
        more: {name: {metric: value}} for table.json alone.
    """
    run, test = Path(config.output_dir), inputs.split.test
    if distributed.rank() == 0:
        rows = beside_popularity(ranks, test, inputs.split.train_counts, config)
        for name, figures in (more or {}).items():
            rows[name] |= figures
        note = (
            f"Test split ({inputs.split.origin}), {candidates(inputs.interactions.num_items, config)}, "
            f"best epoch {state.best_epoch} by validation {loop.BEST_BY}; {judged}"
            f"± is half the width of the 95 % bootstrap interval."
        )
        log.block(f"\n{write_table(run, rows, config.topk, note)}\n{note}\n")
        draw_curves(run)
        log.block(f"Files in {run}/: table.md, table.json, curves.png, metrics.jsonl, best_model/")
    distributed.barrier()
    best = f"best epoch {state.best_epoch} (validation {loop.BEST_BY} {state.best_score:.4f})"
    log.note(f"done: {state.step} steps, {best}")
