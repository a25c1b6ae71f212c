"""Saving: the DeepSpeed state, and an export anyone can load. Every rank takes part.

checkpoint-epoch-3/
    deepspeed/               engine state of all ranks
    item_llm/ user_llm/      Hugging Face directories (no item_llm/ with --id_only)
    hllm_head.safetensors    [ITEM] and temperature; item_id_embedding.safetensors with item_ids.json, if any
    train_state.json         where the run stood
    run.json                 the run's settings, so that the directory explains itself
"""

import os
import shutil
import time
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.engine.weights import cpu_state_dict
from pixelrec_train.run_directory import write_json

BEST = "best_model"


def save_checkpoint(engine, state, config, is_best, log):
    """Write checkpoint-epoch-<state.epoch>, make it best_model if it is, drop the oldest beyond the limit.

    A directory gets its final name when it is complete; an unfinished one ends in .partial.
    """
    started = time.monotonic()
    run = Path(config.output_dir)
    name = f"checkpoint-epoch-{state.epoch}"
    partial = run / f"{name}.partial"
    if distributed.rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    distributed.barrier()
    engine.save_checkpoint(str(partial), tag="deepspeed", save_latest=False)
    tensors = cpu_state_dict(engine.module)
    state.checkpoints.append(name)
    dropped = state.checkpoints[: -config.save_total_limit]
    state.checkpoints = state.checkpoints[-config.save_total_limit :]
    if distributed.rank() == 0:
        engine.module.export(partial, tensors)
        write_json(partial / "train_state.json", state.as_dict())
        shutil.copy(run / "run.json", partial)
        os.replace(partial, run / name)
        if is_best:
            link_tree(run / name, run / BEST)
        for old in dropped:  # only what this run wrote
            shutil.rmtree(run / old)
    distributed.barrier()
    log.saved(state, run / name, time.monotonic() - started)


def link_tree(source, destination):
    """Copy a directory with hard links where the file system has them, so that best_model costs no disk."""
    partial = destination.with_name(destination.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=link_or_copy)
    shutil.rmtree(destination, ignore_errors=True)
    os.replace(partial, destination)


def link_or_copy(source, destination):
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)
