"""Train a two-tower HLLM, judge it on validation after every epoch and on test at the end.

The only place where data, model, task, engine and evaluation meet.
"""

import contextlib
import os
import random
import signal
from pathlib import Path

import numpy as np
import torch

from pixelrec_train import distributed, run_directory
from pixelrec_train.commands.inputs import read_inputs
from pixelrec_train.commands.plan import describe_plan
from pixelrec_train.config import TrainConfig, parse_args
from pixelrec_train.data.collate import TwoTowerCollator
from pixelrec_train.data.dataset import HistoryDataset
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.negatives import NegativeSampler
from pixelrec_train.engine import checkpoint, ds_config, loop
from pixelrec_train.engine.build import build_engine
from pixelrec_train.engine.state import TrainState
from pixelrec_train.engine.weights import load_weights, whole
from pixelrec_train.errors import InputError, TrainingStopped, speak_plainly
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.index import import_faiss
from pixelrec_train.evaluation.report import draw_curves, table_rows, write_table
from pixelrec_train.evaluation.retrieval import encode_catalogue, rank_held_out
from pixelrec_train.evaluation.validation_loss import ValidationLoss
from pixelrec_train.model.backbone import check_vocabulary
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.runlog import RunLog, log_path, show_under_tensorboard
from pixelrec_train.tasks.two_tower import TwoTowerTask


@speak_plainly
def main(argv=None):
    config = parse_args(TrainConfig, argv)
    if config.dry_run:
        run_directory.check_free(config.output_dir, config.overwrite)
        inputs, model, resolved = prepare(config, config.dry_run)
        print("\n".join(describe_plan(config, inputs, model, resolved, config.dry_run)))
        return
    signal.signal(signal.SIGTERM, stop)
    distributed.initialise(config.collective_timeout_minutes)
    with claimed_directory(config):
        run(config)
    distributed.finish()  # not after an error: it would wait for ranks that wait for this one


def stop(number, frame):
    raise TrainingStopped(f"{signal.Signals(number).name} received")


def run(config):
    """One whole run, on every rank."""
    inputs, model, resolved = prepare(config, distributed.world_size())
    loader = build_loader(config, inputs)
    steps_per_epoch = -(-len(loader) // config.gradient_accumulation_steps)
    state = TrainState(total_steps=steps_per_epoch * config.num_train_epochs)
    plan = describe_plan(config, inputs, model, resolved, distributed.world_size())
    if config.gradient_checkpointing:
        model.enable_checkpointing()
    engine = build_engine(TwoTowerTask(model, config), config, resolved, state.total_steps)
    log = open_log(config, resolved, inputs)  # replaces an earlier run, so only when the engine stands
    try:
        for line in plan:
            log.note(line)
        loop.train(engine, loader, [lambda: validate(engine.module, inputs, config)], state, config, log)
        finish(engine, inputs, state, config, log)
    except BaseException as error:  # who reads the log file sees why it ends here
        log.note(f"stopped after step {state.step}: {str(error) or type(error).__name__}")
        raise
    finally:
        log.close()


def prepare(config, world_size):
    """Everything that can be wrong with the input is found here, before a single step."""
    seed_everything(config.seed)
    if config.retrieval == "faiss":
        import_faiss()
    inputs = read_inputs(config)
    model = HLLMModel.from_pretrained_towers(config)
    check_vocabulary(model.item_llm.backbone, inputs.item_text, config.item_model_dir)
    width = model.item_llm.backbone.config.hidden_size
    return inputs, model, ds_config.resolve(config, world_size, width)


def build_loader(config, inputs):
    per_window = config.negatives_per_window(distributed.world_size())
    sampler = NegativeSampler(inputs.split.train_counts, per_window, config.max_seq_length, config.seed)
    return Loader(
        HistoryDataset(inputs.interactions, inputs.split),
        TwoTowerCollator(inputs.item_text, sampler, config.max_seq_length),
        config.per_device_train_batch_size,
        config.seed,
        config.dataloader_num_workers,
    )


def validate(task, inputs, config):
    """Validation figures of the current weights: recall, ndcg, mrr, the same for cold targets, valid_loss."""
    model, split, world_size = task.model, inputs.split, distributed.world_size()
    catalogue = encode_catalogue(model.item_llm, inputs.item_text, config.eval_tokens)
    pool_size = config.negatives_per_window(world_size) * config.per_device_train_batch_size * world_size
    with whole([model.logit_scale]):
        logit_scale = model.logit_scale.detach().clone()
    loss = ValidationLoss(
        catalogue, logit_scale, split.train_counts, pool_size, config.nce_thres, config.seed
    )
    ranks, mean_loss = rank_held_out(model, catalogue, split.valid, config, config.max_seq_length, loss)
    cold = split.train_counts[split.valid.target] == 0
    cold_figures = metrics.figures(ranks[cold], config.topk) if cold.any() else {}
    return (
        {"valid_loss": mean_loss}
        | metrics.figures(ranks, config.topk)
        | {f"cold_{k}": v for k, v in cold_figures.items()}
    )


def finish(engine, inputs, state, config, log):
    """Judge the best model on the test split beside popularity, and leave table and curves."""
    run, test = Path(config.output_dir), inputs.split.test
    model = engine.module.model
    if state.best_epoch != state.epoch:
        load_weights(model, HLLMModel.load(run / checkpoint.BEST, config.max_text_length))
    with loop.judging(engine):
        catalogue = encode_catalogue(model.item_llm, inputs.item_text, config.eval_tokens)
        ranks, _ = rank_held_out(model, catalogue, test, config, config.max_seq_length)
    if distributed.rank() == 0:
        rows = table_rows({"two_tower": ranks}, test, inputs.split.train_counts, config)
        note = (
            f"Test = last item of each user, {inputs.interactions.num_items:,} candidates, "
            f"{'seen items left in' if config.keep_seen else 'seen items removed'}, "
            f"best epoch {state.best_epoch} by validation {loop.BEST_BY}; "
            f"± is half the width of the 95 % bootstrap interval."
        )
        log.block(f"\n{write_table(run, rows, config.topk, note)}\n{note}\n")
        draw_curves(run)
        log.block(f"Files in {run}/: table.md, table.json, curves.png, metrics.jsonl, best_model/")
    distributed.barrier()
    best = f"best epoch {state.best_epoch} (validation {loop.BEST_BY} {state.best_score:.4f})"
    log.note(f"done: {state.step} steps, {best}")


def open_log(config, resolved, inputs):
    """Write down what runs, then open the log."""
    run = Path(config.output_dir)
    if distributed.rank() == 0:
        run_directory.clear(run)
        run_directory.record_start(
            run, config, resolved, {"ranks": distributed.world_size()} | inputs.facts()
        )
        for events in tensorboard_dir(config).glob("events.out.tfevents.*"):
            events.unlink()  # curves of the run this one replaces
        show_under_tensorboard(config.logging_dir)
    distributed.barrier()
    log_files = (log_path(config.logging_dir), run / "train.log")
    log = RunLog(log_files, run / "metrics.jsonl", tensorboard_dir(config))
    log.note(
        f"start: {distributed.world_size()} ranks on {distributed.device().type}, "
        f"{torch.get_num_threads()} threads each; process {os.getpid()}; run directory {run}"
    )
    return log


def tensorboard_dir(config):
    """Each run directory has its own curves: logs/pixelrec/results-demo for results/demo."""
    run = Path(config.output_dir).resolve()
    parts = run.relative_to(Path.cwd()).parts if run.is_relative_to(Path.cwd()) else run.parts[1:]
    return Path(config.logging_dir) / ("-".join(parts) or "run")


@contextlib.contextmanager
def claimed_directory(config):
    """Rank 0 holds the run directory; if it cannot, or a rank does not see it, all stop with the reason."""
    with contextlib.ExitStack() as stack:
        problem, holder = None, None
        if distributed.rank() == 0:
            try:
                run_directory.check_free(config.output_dir, config.overwrite)
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


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
