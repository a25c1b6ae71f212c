"""How every run begins: its directory claimed, its seeds set, its log open."""

import contextlib
import json
import os
import random
from pathlib import Path

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.config import TrainConfig
from pixelrec_train.engine import ds_config
from pixelrec_train.errors import InputError
from pixelrec_train.files import possible_directory
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import watchdog
from pixelrec_train.run.log import RunLog, log_path, show_under_tensorboard
from pixelrec_train.run.signals import StopSignals
from pixelrec_train.tasks.tokens import LLM


def open_log(config, resolved, facts, resumed_at=None):
    """Write down what runs, then open the log.

    resumed_at: the step a resumed run goes on from: what it wrote up to there stays.
    """
    run = Path(config.output_dir)
    if distributed.rank() == 0 and resumed_at is not None:
        run_directory.forget_after(run, resumed_at)
    elif distributed.rank() == 0:
        run_directory.clear(run)
        run_directory.record_start(run, config, resolved, {"ranks": distributed.world_size()} | facts)
        with contextlib.suppress(OSError):  # RunLog says it when it cannot write there
            for events in tensorboard_dir(config).glob("events.out.tfevents.*"):
                events.unlink()  # curves of the run this one replaces
            show_under_tensorboard(config.logging_dir)
    distributed.barrier()
    log_files = (log_path(config.logging_dir), run / "train.log")
    log = RunLog(log_files, run / "metrics.jsonl", tensorboard_dir(config), resumed_at)
    log.note(
        f"start: {distributed.world_size()} ranks on {distributed.device().type}, "
        f"{torch.get_num_threads()} threads each; process {os.getpid()}; run directory {run}"
    )
    watchdog.tell(log.note)
    return log


def tensorboard_dir(config):
    """Each run directory has its own curves: logs/pixelrec/results-demo for results/demo."""
    run = Path(config.output_dir).resolve()
    parts = run.relative_to(Path.cwd()).parts if run.is_relative_to(Path.cwd()) else run.parts[1:]
    return Path(config.logging_dir) / ("-".join(parts) or "run")


@contextlib.contextmanager
def claimed_directory(config, going_on=False):
    """Rank 0 holds the run directory; if it cannot, or a rank does not see it, all stop with the reason.

    going_on: an unfinished run may lie there, to be continued (or begun anew before its first checkpoint).
    """
    with contextlib.ExitStack() as stack:
        problem, holder = None, None
        if distributed.rank() == 0:
            try:
                check_places(config, going_on)
                holder = stack.enter_context(run_directory.lock(config.output_dir))
            except InputError as error:
                problem = str(error)
        problem, holder = distributed.from_first_rank((problem, holder))
        blind = distributed.gather_objects(not problem and run_directory.holder(config.output_dir) != holder)
        if any(blind):
            problem = (
                f"rank {blind.index(True)} does not see the --output_dir {config.output_dir} of rank 0. "
                f"On several machines it must lie on a file system they share."
            )
        if problem:
            raise InputError(problem)
        yield


def check_places(config, going_on=False):
    """Raises InputError where the run directory is not free, or it and the log cannot be written."""
    run_directory.check_free(config.output_dir, config.overwrite or going_on)
    possible_directory(config.logging_dir, "--logging_dir")


def unsharded_settings(config, width, what):
    """The dict for deepspeed.initialize of a model that is too small for ZeRO-3, or an InputError.

    what: "SASRec is"
    """
    resolved = ds_config.resolve(config, distributed.world_size(), width)
    if resolved["zero_optimization"]["stage"] == 3:
        raise InputError(
            f"--deepspeed {config.deepspeed} is ZeRO-3; {what} too small for it. Use stage 1 or 2."
        )
    return resolved


def check_init_from(config):
    """Raises InputError when --init_from is no checkpoint, or lies where this run is going to write."""
    if not config.init_from:
        return
    trained_config(config.init_from, "--init_from")
    check_kept(config, "init_from")


def check_kept(config, *flags):
    """Raises InputError where what one of the flags names belongs to the run that this one replaces."""
    for name in flags:
        path = getattr(config, name)
        if path and run_directory.is_part(path, config.output_dir):
            raise InputError(
                f"--{name} {path} lies in --output_dir {config.output_dir}, which this run replaces. Choose "
                f"another --output_dir."
            )


def trained_config(checkpoint, flag_name, config_class=TrainConfig):
    """The config a checkpoint was made with, or an InputError that says what stands there instead."""
    directory = Path(checkpoint)
    for inside in (directory / "best_model", *directory.glob("checkpoint-*-*")):
        if inside.is_dir():
            raise InputError(f"{flag_name} {directory} is a run. Did you mean {inside}?")
    weights = (*directory.glob("*.safetensors"), *directory.glob(f"{LLM}/*.safetensors"))
    if not (directory / "run.json").is_file() or not weights:
        raise InputError(
            f"{flag_name} {directory} is not a checkpoint (looked from {Path.cwd()}). Expected a "
            f"checkpoint-epoch-N or best_model directory of a training run."
        )
    if config_class is TrainConfig and (directory / LLM).is_dir():
        raise InputError(
            f"{flag_name} {directory} is a generative checkpoint; it must be one of a two-tower model."
        )
    try:
        found = json.loads((directory / "run.json").read_text(encoding="utf-8"))["config"]
        return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
        raise InputError(
            f"{flag_name} {directory} holds no run.json of this version. Expected a checkpoint-epoch-N or "
            f"best_model directory of a training run."
        ) from None


@contextlib.contextmanager
def telling(log, state):
    """Who reads the log file sees why it ends where it ends; gives the signals that may end it."""
    try:
        with StopSignals() as signals:
            yield signals
    except BaseException as error:
        log.note(f"stopped after step {state.step}: {str(error) or type(error).__name__}")
        raise
    finally:
        log.close()


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
