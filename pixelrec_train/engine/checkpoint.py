"""Saving and going on: what a run needs to continue as if nothing had happened, and an export for anyone.

checkpoint-epoch-3/, checkpoint-step-120/
    optimizer/rank-0.safetensors   master weights, moments, random numbers and open log sums of each rank, and
                                   what its loader carries (rollouts that are still learned from)
    item_llm/ user_llm/            Hugging Face directories (no item_llm/ with --id_only)
    hllm_head.safetensors          [ITEM] and temperature; item_id_embedding.safetensors, item_ids.json too
    train_state.json               where the run stood
    run.json                       the run's settings, so that the directory explains itself
    manifest.json                  size and checksum of every file above
    README.md                      what it is and how good; that of best_model anew at the end of the run

With --checkpoint_layout global_step the same files lie in step120/global_step120/.
"""

import json
import re
import shutil
import time
from pathlib import Path

import torch
from safetensors import SafetensorError

from pixelrec_train import distributed
from pixelrec_train.engine import optimizer_state
from pixelrec_train.engine.log_sums import LogSums, mean_of
from pixelrec_train.engine.manifest import (
    BEST,
    OLDER,
    described,
    let_go,
    link_tree,
    put_in_place,
    remove,
    to_disk,
    write_manifest,
)
from pixelrec_train.engine.state import TrainState
from pixelrec_train.engine.weights import cpu_state_dict
from pixelrec_train.engine.zero import size_of
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import write_json
from pixelrec_train.run import model_card, watchdog
from pixelrec_train.run.checkpoints import NAME, STATE, inside, name_of, run_of


def save_checkpoint(session, is_best=False):
    """Write where `state` stands, make it best_model if it is, drop the oldest beyond the limit.

    A directory gets its final name when all of it is on the disk, and loses it before anything is removed;
    an unfinished one ends in .partial. All ranks call it.

    Returns:
        Where its files lie, or None when it could not be written (no room, say): the log says so, the
        checkpoints before are as they were, and training can go on.
    """
    state, loop, log = session.state, session.loop, session.log
    started = time.monotonic()
    name = name_of(state, loop.checkpoint_layout)
    watchdog.at(f"saving {name}")
    run, kept = Path(loop.output_dir), state.checkpoints
    partial = run / f"{name}.partial"
    state.checkpoints = [*(old for old in kept if old != name), name][-loop.save_total_limit :]
    problem = write_all(session, run, inside(partial))
    if not problem:
        problem = first_rank_only(lambda: put_in_place(partial, run / name, is_best))
    if problem:
        state.checkpoints = kept
        first_rank_only(lambda: remove(partial))
        log.failed_save(state, run / name, problem)
        return None
    first_rank_only(lambda: let_go(run, kept, state.checkpoints))
    place = inside(run / name)
    log.saved(state, place, time.monotonic() - started)
    return place


def try_to_save(session):
    """Write a checkpoint and take it away; None, or what kept it from being written. All ranks call it."""
    run = Path(session.loop.output_dir)
    partial = run / f"preflight-{name_of(session.state, 'plain')}.partial"
    problem = write_all(session, run, partial)
    first_rank_only(lambda: remove(partial))
    return problem


def write_all(session, run, partial):
    """Everything but the final name, by all ranks; what went wrong, or None, on all of them."""
    engine, state = session.engine, session.state
    sizes = distributed.gather_objects(optimizer_state.size(engine))
    room = sum(sizes) + weights_size(engine.module)
    if problem := first_rank_only(lambda: begin(run, partial, room)):
        return problem
    own = partial / optimizer_state.file_name(distributed.rank())
    sums = json.dumps(state.sums.as_dict() if state.sums else None)
    kept = random_states() | (session.loader.carried() if is_carrying(session.loader) else {})

    def write_own():
        optimizer_state.save(engine, partial, kept, {"window": sums})
        to_disk(own)

    problem = attempt(write_own)
    tensors = cpu_state_dict(engine.module)  # the ranks together, so also where one had no room

    def write_rest():
        engine.module.export(partial, tensors)
        write_json(partial / STATE, state.as_dict())
        shutil.copy(run / "run.json", partial)
        figures = model_card.judged_so_far(session.log.judged, state)
        place = inside(run / name_of(state, session.loop.checkpoint_layout)).relative_to(run)
        text = model_card.card(session.loop, partial, place, figures)
        (partial / model_card.CARD).write_text(text, encoding="utf-8")

    if distributed.rank() == 0:
        problem = problem or attempt(write_rest)
    own_digest = None if problem else (str(own.relative_to(partial)), described(own))
    problems, digests = zip(*distributed.gather_objects((problem, own_digest)), strict=True)
    if any(problems):
        return next(filter(None, problems))
    return first_rank_only(lambda: write_manifest(partial, dict(digests)))


def begin(run, partial, room):
    """An empty directory where `room` bytes fit, or OSError."""
    remove(run / partial.relative_to(run).parts[0])
    free = shutil.disk_usage(run).free
    if free < 1.05 * room:
        raise OSError(f"{room / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free in {run}")
    partial.mkdir(parents=True)


def attempt(work):
    """None, or what kept the work from being done."""
    try:
        with watchdog.busy():  # hundreds of gigabytes, perhaps over a network
            work()
    except (OSError, SafetensorError) as error:
        return first_line(error)


def first_rank_only(work):
    """Rank 0 attempts the work; the problem, or None, on every rank."""
    return distributed.from_first_rank(attempt(work) if distributed.rank() == 0 else None)


def weights_size(module):
    """Bytes of all its weights."""
    return sum(size_of(p) * p.element_size() for p in module.parameters())


def load_checkpoint(session, directory):
    """Put engine, random numbers and state where they stood at save. All ranks call it.

    With as many ranks as then, what follows is equal to the bit to a run that was not interrupted.

    directory: a checkpoint that verify() has found whole.
    """
    engine, state, directory = session.engine, session.state, Path(directory)
    tensors, facts = optimizer_state.load(engine, directory)
    sums = [json.loads(fact["window"]) for fact in facts]
    state.restore(read_state(directory))
    if sums[0]:
        same = len(sums) == distributed.world_size()
        state.sums = LogSums.from_dict(sums[distributed.rank()] if same else mean_of(sums))
    set_step(engine.lr_scheduler, state.step)
    engine.global_steps = state.step
    restore_random_states(tensors)
    if is_carrying(session.loader):
        session.loader.carry(tensors)
    engine.module.restore(directory)
    if distributed.rank() == 0 and state.best_epoch == session.position:
        link_tree(directory, run_of(directory) / BEST)  # the run may have been killed before it did


def is_carrying(loader):
    """Whether a checkpoint holds more of a loader than its place."""
    return hasattr(loader, "carried")


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


def read_state(directory):
    """train_state.json as a dict.

    Raises:
        InputError: it is not one of ours. A checkpoint is untrusted input: names in it are deleted later.
    """
    try:
        found = json.loads((directory / STATE).read_text(encoding="utf-8"))
        known = TrainState(0).as_dict().keys()  # a version before this one knew fewer
        whole = known - {"since_best", "owes_evaluation"} <= found.keys() <= known
        whole = whole and all(
            isinstance(found[name], int) for name in ("step", "epoch", "batch", "total_steps")
        )
        if whole and all(re.fullmatch(NAME, name) for name in found["checkpoints"]):
            return found
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    raise InputError(f"{directory}/{STATE} is missing, or not of this version. {OLDER}")
