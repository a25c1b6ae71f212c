"""Saving and going on: what a run needs to continue as if nothing had happened, and an export for anyone.

checkpoint-epoch-3/, checkpoint-step-120/
    optimizer/rank-0.safetensors   master weights, moments, random numbers and open log sums of each rank
    item_llm/ user_llm/            Hugging Face directories (no item_llm/ with --id_only)
    hllm_head.safetensors          [ITEM] and temperature; item_id_embedding.safetensors, item_ids.json too
    train_state.json               where the run stood
    run.json                       the run's settings, so that the directory explains itself
    manifest.json                  size and checksum of every file above
"""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import torch

from pixelrec_train import distributed
from pixelrec_train.engine import optimizer_state
from pixelrec_train.engine.weights import cpu_state_dict
from pixelrec_train.engine.window import Window
from pixelrec_train.errors import InputError
from pixelrec_train.run_directory import write_json

BEST = "best_model"
MANIFEST = "manifest.json"


def save_checkpoint(engine, state, config, log, is_best=False):
    """Write where `state` stands, make it best_model if it is, drop the oldest beyond the limit.

    A directory gets its final name when complete; an unfinished one ends in .partial. All ranks call it.
    """
    started = time.monotonic()
    run = Path(config.output_dir)
    name = f"checkpoint-step-{state.step}" if state.batch else f"checkpoint-epoch-{state.epoch}"
    partial = run / f"{name}.partial"
    if distributed.rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    distributed.barrier()
    sums = json.dumps(state.window.as_dict() if state.window else None)
    optimizer_state.save(engine, partial, random_states(), {"window": sums})
    tensors = cpu_state_dict(engine.module)
    kept = [old for old in state.checkpoints if old != name] + [name]
    state.checkpoints, dropped = kept[-config.save_total_limit :], kept[: -config.save_total_limit]
    if distributed.rank() == 0:
        engine.module.export(partial, tensors)
        write_json(partial / "train_state.json", state.as_dict())
        shutil.copy(run / "run.json", partial)
    own = partial / optimizer_state.file_name(distributed.rank())
    digests = distributed.gather_objects((str(own.relative_to(partial)), described(own)))
    if distributed.rank() == 0:
        rest = [p for p in partial.rglob("*") if p.is_file() and p.parent.name != "optimizer"]
        digests += [(str(p.relative_to(partial)), described(p)) for p in rest]
        write_json(partial / MANIFEST, dict(digests))
        shutil.rmtree(run / name, ignore_errors=True)  # of a run that was killed after this one
        os.replace(partial, run / name)
        if is_best:
            link_tree(run / name, run / BEST)
        for old in dropped:  # only what this run wrote
            shutil.rmtree(run / old, ignore_errors=True)
    distributed.barrier()
    log.saved(state, run / name, time.monotonic() - started)


def load_checkpoint(engine, state, directory):
    """Put engine, random numbers and `state` where they stood at save. All ranks call it.

    With as many ranks as then, what follows is equal to the bit to a run that was not interrupted.

    Raises:
        InputError: a file is missing, cut short or changed.
    """
    directory = Path(directory)
    verify(directory)
    tensors, facts = optimizer_state.load(engine, directory)
    sums = [json.loads(fact["window"]) for fact in facts]
    for name, value in json.loads((directory / "train_state.json").read_text(encoding="utf-8")).items():
        setattr(state, name, value)
    if sums[0]:
        same = len(sums) == distributed.world_size()
        state.window = Window.from_dict(sums[distributed.rank()] if same else mean_of(sums))
    set_step(engine.lr_scheduler, state.step)
    engine.global_steps = state.step
    restore_random_states(tensors)
    if distributed.rank() == 0 and state.batch == 0 and state.best_epoch == state.epoch:
        link_tree(directory, directory.parent / BEST)  # the run may have been killed before it did


def mean_of(sums):
    """Open log sums of other ranks than these, so that together they say the same."""
    fewer = len(sums) / distributed.world_size()

    def mean(name):
        return sum(each[name] for each in sums) / len(sums)

    counts = {name: mean(name) * fewer for name in ("users", "items", "tokens")}
    totals = {name: sum(each["sums"][name] for each in sums) / len(sums) for name in sums[0]["sums"]}
    return sums[0] | counts | {"sums": totals, "waited": mean("waited")}


def set_step(schedule, step):
    """As if the schedule had been stepped so often."""
    schedule.last_epoch, schedule._step_count = step, step + 1
    factors = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    schedule._last_lr = [base * factor(step) for base, factor in factors]
    for group, rate in zip(schedule.optimizer.param_groups, schedule._last_lr, strict=True):
        group["lr"] = rate


def random_states():
    """Of this rank's generators, which dropout draws from; all else is seeded by its place in the run."""
    states = {"random.cpu": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state()} if distributed.uses_gpu() else {})


def restore_random_states(states):
    if "random.cpu" in states:
        torch.set_rng_state(states["random.cpu"])
    if "random.cuda" in states and distributed.uses_gpu():
        torch.cuda.set_rng_state(states["random.cuda"])


def verify(directory):
    """Raises InputError, on every rank, when a file is not as it was written."""
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    mine = sorted(manifest)[distributed.rank() :: distributed.world_size()]
    wrong = [name for name in mine if described(directory / name) != manifest[name]]
    wrong = sum(distributed.gather_objects(wrong), [])
    if wrong:
        raise InputError(
            f"{directory} is damaged: {', '.join(sorted(wrong))} missing, cut short or changed since it was "
            f"written. Resume from an older checkpoint of the run (--resume PATH), or start anew."
        )


def described(path):
    """[bytes, checksum] of a file; None where there is none."""
    if not path.is_file():
        return None
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return [path.stat().st_size, digest.hexdigest()]


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
